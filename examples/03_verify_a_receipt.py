"""Verify a receipt as its receiver does: with the receipt, the key of the log, and nothing else.

The first half plays the sender, in a folder of its own. The second half uses only what it was sent, and shows that one
changed letter is noticed.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from lichen.crypto.keys import PublicKey
from lichen.errors import LichenError
from lichen.ledger.receipt import Receipt, verify_receipt


def lichen(*arguments: str) -> str:
    """Run a lichen command and return what it prints."""
    command = [sys.executable, "-m", "lichen", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    os.environ["LICHEN_HOME"] = str(Path(folder) / "home")
    Path("train.py").write_text("open('model.txt', 'w').write('weights')\n")
    lichen("init", "--public", "--member", "ada")
    lichen("run", "--", sys.executable, "train.py")
    receipt = lichen("show", "--receipt")
    log_key = next(
        line.split()[-1] for line in lichen("key", "show").splitlines() if line.startswith("log key")
    )
    os.chdir("/")

print("sent: a receipt of", len(receipt), "characters, and the log key", log_key)

proved = verify_receipt(Receipt.parse(receipt), PublicKey.from_did_key(log_key))
for sentence in proved.proves:
    print("it proves:", sentence)
for sentence in proved.does_not_prove:
    print("it does not prove:", sentence)

try:
    verify_receipt(Receipt.parse(receipt.replace("index 2", "index 1")), PublicKey.from_did_key(log_key))
except LichenError as error:
    print("with another index:", error.message)
