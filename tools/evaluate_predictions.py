#!/usr/bin/env python
"""Evaluate saved predictions, ours or anybody's. No model and no Detectron2 is needed.

    python tools/evaluate_predictions.py --format cihp \\
        --predictions output/inference/cihp --ground-truth datasets/.../Validation \\
        --protocol sds cihp --json results.json --report report/

``--format`` is the format of both folders; ``--ground-truth-format`` says otherwise. Every
format's files are described in docs/EVALUATION.md. Images without a prediction count as missed
(but under the protocol ``cihp``, which leaves them out). Each AP is printed with the name of its
protocol, because numbers of different protocols cannot be compared.
"""

import sys

from instance_crf.cli import main_of


def main(argv=None) -> int:
    return main_of("evaluate", argv, description=__doc__)


if __name__ == "__main__":
    sys.exit(main())
