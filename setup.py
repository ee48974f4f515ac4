#!/usr/bin/env python
"""Package metadata. Detectron2 is not among the requirements: see tools/install_detectron2.py."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
SOURCE = "projects/InstanceCRF"
README = ROOT / "README.md"

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
    install_requires=[
        "torch>=2.4",
        "torchvision>=0.19",
        "numpy>=1.26",
        "scipy>=1.11",
        "numba>=0.60",
        "Pillow>=10.1",
        "opencv-python-headless>=4.9",
        "pycocotools>=2.0.8",
        "matplotlib>=3.8",
        "PyYAML>=6.0",
        "fvcore>=0.1.5",
        "tabulate>=0.9",
        "tqdm>=4.66",
    ],
    extras_require={"dev": ["pytest>=8.0", "hypothesis>=6.100", "ruff>=0.9"]},
    classifiers=[
        "Programming Language :: Python :: 3",
        "Operating System :: OS Independent",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
)
