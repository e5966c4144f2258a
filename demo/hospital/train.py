"""Search for a model that tells malignant from benign tumours.

A plain script: it knows nothing of Lichen. It reads clinic.csv, searches forests by cross-validation, and writes the best one with a summary.
"""

import argparse
import json
from pathlib import Path

import joblib
import numpy as np
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.model_selection import GridSearchCV, train_test_split

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--max-depth", type=int, default=6)
parser.add_argument("--trees", type=int, default=150)
parser.add_argument("--seed", type=int, default=0)
arguments = parser.parse_args()

table = np.loadtxt("clinic.csv", delimiter=",", skiprows=1)
features, benign = table[:, :-1], table[:, -1].astype(int)
train_x, test_x, train_y, test_y = train_test_split(
    features, benign, test_size=0.25, random_state=arguments.seed, stratify=benign
)

best = None
for forest in (RandomForestClassifier, ExtraTreesClassifier):
    search = GridSearchCV(
        forest(n_estimators=arguments.trees, max_depth=arguments.max_depth, random_state=arguments.seed),
        {"max_features": ["sqrt", 0.5], "min_samples_leaf": [1, 4]},
        cv=3,
    )
    search.fit(train_x, train_y)
    print(f"{forest.__name__}: cross-validated accuracy {search.best_score_:.4f} with {search.best_params_}")
    if best is None or search.best_score_ > best.best_score_:
        best = search

accuracy = best.score(test_x, test_y)
Path("model").mkdir(exist_ok=True)
joblib.dump(best.best_estimator_, "model/forest.joblib")
summary = {"accuracy": round(accuracy, 4), "patients": len(benign), "parameters": best.best_params_}
Path("model/summary.json").write_text(json.dumps(summary, indent=2))
print(f"held-out accuracy: {accuracy:.4f}")
