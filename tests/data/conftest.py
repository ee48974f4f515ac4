"""Small data sets in the canonical layout."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FOLDERS = {"train": "Training", "val": "Validation", "test": "Testing"}


@pytest.fixture
def scene():
    """A function (H, W, people) -> image, parts, objects: people side by side, two parts each."""

    def draw(height=60, width=100, people=3):
        image = np.random.randint(0, 256, (height, width, 3), dtype=np.uint8)
        parts = np.zeros((height, width), dtype=np.uint8)
        objects = np.zeros((height, width), dtype=np.int32)
        step = width // max(people, 1)
        for i in range(people):
            columns = slice(i * step + 2, (i + 1) * step - 3)
            parts[5:20, columns], parts[20:50, columns] = 1, 2
            objects[5:50, columns] = i + 1
        return image, parts, objects

    return draw


@pytest.fixture
def write_canonical():
    """A function that writes {id: (image, parts, objects)} in the canonical layout."""

    def write(root, split, images, suffix=".png"):
        folder = Path(root) / FOLDERS.get(split, split)
        for name in ("Images", "Category_ids", "Human_ids"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for image_id, (image, parts, objects) in images.items():
            Image.fromarray(image).save(folder / "Images" / f"{image_id}{suffix}")
            Image.fromarray(parts.astype(np.uint8)).save(folder / f"Category_ids/{image_id}.png")
            dtype = np.uint16 if objects.max(initial=0) > 255 else np.uint8
            Image.fromarray(objects.astype(dtype)).save(folder / f"Human_ids/{image_id}.png")
        (folder / f"{split}_id.txt").write_text("".join(f"{i}\n" for i in images))
        return folder

    return write
