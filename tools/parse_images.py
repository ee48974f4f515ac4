#!/usr/bin/env python
"""Join somebody's part model and somebody's detector on photos: `instance-crf parse`.

    python tools/parse_images.py photo.jpg folder/ --parts hf:mattmdjaga/segformer_b2_clothes \\
        --detector torchvision:fasterrcnn_resnet50_fpn --output output/parsed

For PHOTO.jpg it writes PHOTO.png (ids of the persons), PHOTO_parts.png (ids of the parts),
PHOTO_picture.jpg, and PHOTO.json (boxes and scores). Repeated, it goes on where it stopped.
"""

import sys

from instance_crf.cli import main_of

if __name__ == "__main__":
    sys.exit(main_of("parse", description=__doc__))
