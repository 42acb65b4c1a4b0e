"""Compares what `ai.embed` of a fleet answers with what the model's own library makes of the same texts.

compare.py FLOTA URL MODEL_DIRECTORY MODEL_NAME

FLOTA is the program, URL where the fleet is. Prints what was measured; the exit code is 1 where the vectors differ.
"""

import json
import subprocess
import sys
import time
import urllib.request

import numpy as np
import sentence_transformers
import torch
from sentence_transformers import SentenceTransformer

from texts import NEARER, texts

# The same weights in 32-bit numbers, but other batches, padding and order of sums: measured are differences of some 1e-7. Another
# pooling, another truncation or one word piece more shows from 1e-3 on.
DIFFERENCE_MAX = 1e-5
COSINE_MIN = 1 - 1e-5


def by_command(flota: str, url: str, payload: dict) -> dict:
    command = [flota, "--url", url, "submit", "ai.embed", "--payload", "-", "--wait"]
    done = subprocess.run(command, input=json.dumps(payload), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"flota submit ai.embed: exit code {done.returncode}: {done.stderr}{done.stdout}")
    return json.loads(done.stdout)


def by_rest(url: str, payload: dict) -> dict:
    body = json.dumps({"kind": "ai.embed", "payload": payload}).encode()
    request = urllib.request.Request(f"{url}/api/v1/jobs", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        job = json.load(answer)["id"]
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"{url}/api/v1/jobs/{job}?wait_ms=30000", timeout=60) as answer:
            seen = json.load(answer)
        if seen["state"] == "completed":
            return seen["result"]
        if seen["state"] in ("failed", "cancelled"):
            sys.exit(f"the job is {seen['state']}: {seen.get('error')}")
    sys.exit("the job did not end within 5 minutes")


def differences(vectors: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """The largest difference of a component, the smallest cosine."""
    if vectors.shape != reference.shape:
        return float("inf"), -1.0
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(reference, axis=1)
    return float(np.abs(vectors - reference).max()), float(((vectors * reference).sum(axis=1) / lengths).min())


def agree(difference: float, cosine: float) -> bool:
    return difference <= DIFFERENCE_MAX and cosine >= COSINE_MIN


def out_of_place(vectors: np.ndarray, reference: np.ndarray) -> list[int]:
    """Whose vector is nearer to another text's; texts that the model reads alike count as one."""
    nearest = (vectors @ reference.T).argmax(axis=1)
    return [text for text, other in enumerate(nearest) if not np.allclose(reference[text], reference[other], atol=1e-6)]


def main() -> int:
    flota, url, model_directory, model_name = sys.argv[1:]
    library = SentenceTransformer(model_directory, device="cpu")
    every = texts()
    pieces = [len(library.tokenizer(text)["input_ids"]) for text in every]
    began = time.monotonic()
    reference = library.encode(every, normalize_embeddings=True).astype(np.float64)
    print(f"sentence-transformers {sentence_transformers.__version__}, torch {torch.__version__}: {reference.shape[1]} dimensions of "
          f"{len(every)} texts, which have {min(pieces)} to {max(pieces)} word pieces (it reads {library.max_seq_length}), "
          f"in {time.monotonic() - began:.1f} s")

    failed = agree(*differences(np.roll(reference, 1, axis=0), reference))
    if failed:
        print("vectors of other texts count as the same: this comparison is worth nothing")
    payload = {"texts": every, "model": model_name}
    for way, ask in (("flota submit", lambda: by_command(flota, url, payload)), ("REST", lambda: by_rest(url, payload))):
        began = time.monotonic()
        answer = ask()
        took = time.monotonic() - began
        vectors = np.array(answer["vectors"], dtype=np.float64)
        difference, cosine = differences(vectors, reference)
        misplaced = out_of_place(vectors, reference) if vectors.shape == reference.shape else every
        same = agree(difference, cosine) and not misplaced
        print(f"{way}: {vectors.shape[0]} vectors from '{answer['model']}' by {answer['provider']} in {took:.1f} s: largest difference "
              f"{difference:.2e}, smallest cosine 1 - {1 - cosine:.1e}, out of place {len(misplaced)}: {'same' if same else 'DIFFERENT'}")
        failed |= not same
        for number, (text, near, far) in enumerate(NEARER):
            at = len(every) - 3 * (len(NEARER) - number)
            nearer, farther = float(vectors[at] @ vectors[at + 1]), float(vectors[at] @ vectors[at + 2])
            print(f"  '{text}': {nearer:.3f} to '{near}', {farther:.3f} to '{far}'")
            failed |= nearer <= farther
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
