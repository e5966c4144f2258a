"""A training script that tells its metrics as it goes; without Lichen around it, the calls do nothing.

python examples/02_log_metrics_from_a_script.py
lichen run -- python examples/02_log_metrics_from_a_script.py --epochs 8
"""

import argparse
import math

import lichen

parser = argparse.ArgumentParser(description="Find the square root of two by halving an interval.")
parser.add_argument("--epochs", type=int, default=5)
options = parser.parse_args()

low, high = 1.0, 2.0
for epoch in range(options.epochs):
    middle = (low + high) / 2
    low, high = (middle, high) if middle * middle < 2 else (low, middle)
    lichen.log(step=epoch, error=abs(middle - math.sqrt(2)))

print(f"between {low:.4f} and {high:.4f} after {options.epochs} epochs")
