"""Secrets on a command line are masked; what training scripts usually take is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.runs.work.secrets import MASK, mask_secrets, mask_variables

# Put together here, so that no scanner takes this file for a leak.
GITHUB = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
HUGGING_FACE = "hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgH"
AWS = "AKIA" + "IOSFODNN7EXAMPLE"
OPENAI = "sk-" + "proj-Ab12Cd34Ef56Gh78Ij90Kl12Mn34"
SLACK = "xoxb-" + "123456789012-abcdefghijkl"
JWT = "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0NTYifQ." + "c2lnbmF0dXJlLWhlcmU"
PEM = "-----BEGIN OPENSSH " + "PRIVATE KEY-----\nb3BlbnNzaA==\n-----END OPENSSH " + "PRIVATE KEY-----"
STRIPE = "sk_" + "live_4eC39HqLyjWDarjtT1zdp7dc"
RANDOM = "Zm9vYmFyMTIzNDU2Nzg5MGFiY2RlZg"

MASKED = {
    "password with equals": (["--password=hunter2"], ["--password=***"]),
    "password apart": (["--password", "hunter2"], ["--password", MASK]),
    "password of digits": (["--db-password", "123456"], ["--db-password", MASK]),
    "password with spaces": (["--passphrase=correct horse battery"], ["--passphrase=***"]),
    "one dash": (["-password", "hunter2"], ["-password", MASK]),
    "hydra override": (["db.password=hunter2"], ["db.password=***"]),
    "hydra addition": (["+tracker.api_key=abcdef"], ["+tracker.api_key=***"]),
    "assignment": (["env", "WANDB_API_KEY=0123456789abcdef"], ["env", "WANDB_API_KEY=***"]),
    "camel case": (["--apiKey", "abcdef"], ["--apiKey", MASK]),
    "client secret": (["--client-secret", "abc"], ["--client-secret", MASK]),
    "token": (["--token", "abcdef123"], ["--token", MASK]),
    "token of a service": (["--hub-token=abcdef123"], ["--hub-token=***"]),
    "random key": (["--key", RANDOM], ["--key", MASK]),
    "GitHub": ([f"https://{GITHUB}@github.com/a/b"], [f"https://{MASK}@github.com/a/b"]),
    "Hugging Face": (["--hub", HUGGING_FACE], ["--hub", MASK]),
    "AWS": ([AWS], [MASK]),
    "OpenAI": ([f"--llm={OPENAI}"], [f"--llm={MASK}"]),
    "Slack": ([SLACK], [MASK]),
    "Stripe": ([STRIPE], [MASK]),
    "JSON web token": ([f"x={JWT}"], [f"x={MASK}"]),
    "PEM": ([PEM], [MASK]),
    "PEM cut off": ([PEM[:60]], [MASK]),
    "database address": (["postgresql://ann:pw@host/db"], [f"postgresql://ann:{MASK}@host/db"]),
    "signed address": (["https://h/x?sig=Ab3dEf6hIj9lMn2pQr5t&v=1"], [f"https://h/x?sig={MASK}&v=1"]),
    "token in an address": (["https://h/x?access_token=abcdefgh"], [f"https://h/x?access_token={MASK}"]),
    "header": (["-H", f"Authorization: Bearer {RANDOM}"], ["-H", f"Authorization: Bearer {MASK}"]),
    "shell": (["sh", "-c", "export API_KEY=abc; python t.py"], ["sh", "-c", "export API_KEY=***; python t.py"]),
    "option in a shell": (["sh", "-c", "t --password abc --n 3"], ["sh", "-c", "t --password *** --n 3"]),
    "Python": (["-c", "login(token='abcdefgh')"], ["-c", "login(token='***')"]),
    "JSON": (['{"api_key": "abc", "n": 3}'], ['{"api_key": "***", "n": 3}']),
    "Azure": (["AccountName=a;AccountKey=" + "Ab1/" * 20 + "=="], [f"AccountName=a;AccountKey={MASK}"]),
}  # fmt: skip

HARMLESS = [
    ["python", "train.py", "--depth", "4", "--lr", "1e-3", "--seed", "42"],
    ["--seed=1234567890123456789"],
    ["--commit", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b"],
    ["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
    ["--sha256=9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
    ["--data", "/data/secrets/token/password.csv"],
    ["--run-id", "3f2504e0-4f89-41d3-9a0c-0305e82c3301"],
    ["--max-tokens", "2048"],
    ["--max_new_tokens=256"],
    ["--tokenizer", "bert-base-uncased"],
    ["--pad-token", "[PAD]"],
    ["--eos_token", "<|endoftext|>"],
    ["--special-token", "MASKED_VALUE"],
    ["--token-dropout", "0.1"],
    ["--token-type", "subword-bpe"],
    ["--tokens", "corpus-tokens"],
    ["--use-auth-token", "--fp16"],
    ["--use_auth_token", "True"],
    ["--token-file", "credentials.json"],
    ["--password-file", "/run/secrets/db"],
    ["--api-key", "$API_KEY"],
    ["--api-key-env", "OPENAI_API_KEY"],
    ["--secret", "@secret.txt"],
    ["--private-key", "/home/ann/.ssh/id_ed25519"],
    ["--key", "accuracy"],
    ["--sort-key", "validation_accuracy_2024"],
    ["--public-key", RANDOM],
    ["--key", "val/accuracy"],
    ["--auth", "none"],
    ["--session", "morning"],
    ["--name", "sk-learn-first-experiment-2024"],
    ["--name", "task-ask-disk-risk-long-name-here-2024"],
    ["--model", "meta-llama/Llama-2-7b-hf"],
    ["git@github.com:org/repo.git"],
    ["ssh://git@github.com/org/repo.git"],
    ["https://example.org/a?page=2&sort=name"],
    ["s3://bucket/path/with/key=value/part-0001.parquet"],
    ["bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"],
    ["-c", "print('the secret of the token is: nothing')"],
    ["--formula", "y ~ x1 + x2", "--title", "Password strength"],
    ["sh", "-c", "wc -l token password"],
]


@pytest.mark.parametrize("name", MASKED)
def test_is_masked_and_reported(name: str) -> None:
    argv, expected = MASKED[name]
    masked, found = mask_secrets(argv)
    assert list(masked) == expected
    assert len(found) == 1
    position = int(found[0].where.removeprefix("argument "))
    assert masked[position] != argv[position]


@pytest.mark.parametrize("argv", HARMLESS, ids=" ".join)
def test_is_left_alone(argv: list[str]) -> None:
    assert mask_secrets(argv) == (tuple(argv), ())


def test_what_is_reported_names_the_place_and_not_the_secret() -> None:
    _, found = mask_secrets(["python", "t.py", "--token", "abcdef123", GITHUB])
    assert [str(secret) for secret in found] == [
        "the value of --token (argument 3)",
        "argument 4 (GitHub token)",
    ]


def test_variables_are_masked_by_name_and_by_form() -> None:
    variables = {
        "HOME": "/root",
        "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
        "DATABASE_URL": "mysql://a:b@h/d",
        "PYTHONHASHSEED": "0",
        "NOTE": f"use {HUGGING_FACE}",
        "TOKENIZERS_PARALLELISM": "false",
        "SSH_AUTH_SOCK": "/tmp/ssh-x/agent.1",
    }
    masked, found = mask_variables(variables)
    assert masked == {
        **variables,
        "WANDB_API_KEY": MASK,
        "DATABASE_URL": f"mysql://a:{MASK}@h/d",
        "NOTE": f"use {MASK}",
    }
    assert [secret.where for secret in found] == [
        "variable WANDB_API_KEY",
        "variable DATABASE_URL",
        "variable NOTE",
    ]


@given(st.lists(st.text(max_size=60), max_size=6))
def test_masking_is_total_and_stable(argv: list[str]) -> None:
    masked, found = mask_secrets(argv)
    assert len(masked) == len(argv)
    assert mask_secrets(masked) == (masked, ())
    assert bool(found) == (masked != tuple(argv))
