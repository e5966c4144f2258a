"""Write the clinical data that scikit-learn ships (Wisconsin diagnostic breast cancer, 569 patients) as a CSV file."""

import csv
import sys
from pathlib import Path

from sklearn.datasets import load_breast_cancer

clinic = load_breast_cancer()
target = Path(sys.argv[1] if len(sys.argv) > 1 else "clinic.csv")
with target.open("w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow([*clinic.feature_names, "benign"])
    for row, label in zip(clinic.data, clinic.target, strict=True):
        writer.writerow([*(repr(float(value)) for value in row), int(label)])
print(f"{target}: {len(clinic.target)} patients, {clinic.data.shape[1]} features")
