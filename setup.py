#!/usr/bin/env python
"""Package metadata: a light core, and extras.

Detectron2, which training needs, is not on the package index and so not among the extras:
tools/install_detectron2.py installs it, or one's own build is used.
"""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
SOURCE = "projects/InstanceCRF"
README = ROOT / "README.md"

# The CRF, the losses, PartInstances, and the evaluation of saved label maps.
CORE = ["torch>=2.4", "numpy>=1.26", "scipy>=1.11", "numba>=0.60", "Pillow>=10.1"]
# Run-length encoded masks, curves, progress bars.
EVAL = ["pycocotools>=2.0.8", "matplotlib>=3.8", "tqdm>=4.66"]
# Pictures of labellings, synthetic people.
VIZ = ["opencv-python-headless>=4.9"]
# What Detectron2 needs, and the data sets.
TRAIN = [
    *EVAL,
    *VIZ,
    "torchvision>=0.19",
    "PyYAML>=6.0",
    "fvcore>=0.1.5.post20221221",
    "iopath>=0.1.9",
    "yacs>=0.1.8",
    "omegaconf>=2.1",
    "hydra-core>=1.1",
    "cloudpickle>=2.2",
    "packaging>=23",
    "tabulate>=0.9",
    "termcolor>=2.3",
    "tensorboard>=2.15",
]
# Libraries whose models one may bring; none is imported before a model of it is used.
LIBRARIES = ["transformers>=4.56", "onnxruntime>=1.18", "supervision>=0.27"]
MODELS = [*EVAL, *VIZ, "torchvision>=0.19", *LIBRARIES]
DEV = ["pytest>=8.0", "hypothesis>=6.100", "ruff>=0.9", "onnx>=1.16", *LIBRARIES]

setup(
    name="instance-crf",
    version="0.1.0",
    description="Holistic, instance-level human parsing on Detectron2: for every pixel a part "
    "and the person it belongs to, by a conditional random field trained end to end",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(where=SOURCE, include=["instance_crf", "instance_crf.*"]),
    package_dir={"": SOURCE},
    install_requires=CORE,
    entry_points={"console_scripts": ["instance-crf=instance_crf.cli:main"]},
    extras_require={"train": TRAIN, "eval": EVAL, "viz": VIZ, "models": MODELS, "dev": DEV},
    classifiers=[
        "Programming Language :: Python :: 3",
        "Operating System :: OS Independent",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
)
