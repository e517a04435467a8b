"""Claim: the same cross-validation on networks tuned to the paper's errors alone."""

from __future__ import annotations

import deepmend_table1
import kit

TITLE = "DeepMEND: Table I on networks tuned to the paper's errors"


def run(quick: bool) -> kit.Report:
    """Cross-validate on the second calibration."""
    return deepmend_table1.cross_validation("paper_errors", TITLE, 5, 12 if quick else 50)
