"""Features: pure functions from the bars of one symbol to one float32 row a bar."""

from training.features.compute import Features as Features
from training.features.compute import compute as compute
from training.features.definition import DIGEST as DIGEST
from training.features.definition import MIN_BARS as MIN_BARS
from training.features.definition import NAMES as NAMES
from training.features.definition import WARMUP as WARMUP
