"""What the property tests of readers run in a process of its own, with bounds on time and memory.

A reader is given whatever bytes and whatever JSON there is, and good files with one value changed.
It must come to an end, with numbers between 0 and 100 or an OSError or ValueError that names a file
of its folder; the memory is bounded, and a test that hangs is ended from outside.
"""

import copy
import json
import math
import resource
import shutil
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from instance_crf.data.detections import check_masks, decode_mask, read_detections
from instance_crf.evaluation import Parsing
from instance_crf.evaluation.toolkit.export import export_predictions
from instance_crf.evaluation.toolkit.formats.cihp import write_cihp_truth
from instance_crf.evaluation.toolkit.formats.coco import write_coco_truth
from instance_crf.evaluation.toolkit.formats.panoptic import PanopticWriter
from instance_crf.evaluation.toolkit.formats.tvg import write_tvg_truth
from instance_crf.evaluation.toolkit.photographs import find_photographs, read_photograph
from instance_crf.evaluation.toolkit.runner import Evaluation
from instance_crf.evaluation.toolkit.taxonomies import find_taxonomy
from instance_crf.own_models.boxes.sources.coco_file import load
from instance_crf.taxonomies import read_taxonomy
from instance_crf.taxonomies.schema import PartTaxonomy

ZOO = PartTaxonomy(("head", "legs", "wheel"), ("dog", "car"), (0, 0, 1))
PERSON = PartTaxonomy(("head", "torso", "legs"))
SIZE = (12, 16)
MEMORY = 1 << 30


def parsing(scored, taxonomy=PERSON):
    """Two objects side by side, of three parts; the second has the last part alone."""
    parts, objects = np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.uint8)
    parts[2:5, 2:7], parts[5:9, 2:7], parts[3:11, 9:14] = 1, 2, 3
    objects[2:9, 2:7], objects[3:11, 9:14] = 1, 2
    scores = {"segment_scores": np.array([0.9, 0.8, 0.7]), "object_scores": np.array([0.9, 0.7])}
    return Parsing.of_maps(
        parts,
        objects,
        object_ids=np.array([1, 2]),
        object_classes=np.array([0, taxonomy.num_objects - 1]),
        **(scores if scored else {}),
    )


# --- good files ---


def write_canonical(folder, taxonomy):
    for name, label_map in (
        ("Category_ids", parsing(False).part_map),
        ("Human_ids", parsing(False).object_map),
    ):
        (folder / name).mkdir(parents=True)
        Image.fromarray(label_map).save(folder / name / "a.png")
    (folder / "taxonomy.json").write_text(json.dumps(taxonomy.to_dict()))


def write_truth(format_name, folder):
    """A good truth, of whatever this format can hold."""
    if format_name in ("cihp", "partpq"):
        write_canonical(folder, PERSON)
    elif format_name == "official":
        write_cihp_truth(folder, "a", parsing(False))
    elif format_name == "classes":
        write_canonical(folder, ZOO)
        given_classes = {"a": {"1": "dog", "2": "car"}}
        (folder / "object_classes.json").write_text(json.dumps(given_classes))
    elif format_name == "mhp":
        for number in (1, 2):
            truth = parsing(False)
            person = np.where(truth.object_map == number, truth.part_map, 0).astype(np.uint8)
            (folder / "parsing_annos").mkdir(parents=True, exist_ok=True)
            Image.fromarray(person).save(folder / "parsing_annos" / f"a_02_0{number}.png")
    elif format_name == "tvg":
        write_tvg_truth(folder, "a", parsing(False))
    elif format_name == "panoptic":
        with PanopticWriter(folder, ZOO) as writer:
            writer.add("a", parsing(False, ZOO))
    else:
        write_coco_truth(folder, PERSON, [("a", parsing(False))])


def evaluate(folder, format_name, truth_format, taxonomy):
    """All numbers of predictions/ against truth/."""
    task = Evaluation(
        folder / "predictions", folder / "truth", format_name, truth_format, taxonomy, ("sds",)
    )
    source, total = task.open(), task.new_metrics()
    assert source.truth_ids or source.prediction_ids
    for image_id in sorted({*source.truth_ids} & {*source.prediction_ids}):
        source.add(total, image_id)
    for task_name, numbers in total.compute().items():
        for key, value in numbers.items():
            assert math.isnan(value) or -1e-9 <= value <= 100 + 1e-9, (task_name, key, value)


class Evaluated:
    """A format's predictions and truth, of which one side's files are broken.

    Args:
        files: that are broken, within the folder.
    """

    def __init__(self, format_name, files, *, truth=None, taxonomy=PERSON):
        self.format_name, self.truth, self.taxonomy = format_name, truth or format_name, taxonomy
        self.files = files

    def write(self, folder):
        """Good files of both sides."""
        write_truth(self.truth, folder / "truth")
        export_predictions(
            self.format_name,
            folder / "predictions",
            self.taxonomy,
            [("a", parsing(True, self.taxonomy))],
        )

    def read(self, folder):
        """Use them."""
        truth_format = {"official": "cihp", "classes": "cihp", "partpq": "cihp"}.get(self.truth)
        truth_format, taxonomy = truth_format or self.truth, self.taxonomy
        if truth_format in ("panoptic", "coco"):
            taxonomy = find_taxonomy(None, folder / "truth", truth_format)
        evaluate(folder, self.format_name, truth_format, taxonomy)


class Alone:
    """One JSON that a function reads."""

    def __init__(self, content, read):
        self.files, self.content, self.use = ("file.json",), content, read

    def write(self, folder):
        folder.mkdir(parents=True)
        (folder / "file.json").write_text(json.dumps(self.content))

    def read(self, folder):
        self.use(folder / "file.json")


def use_detections(path):
    for image_id, found in read_detections(path, PERSON).items():
        check_masks(found, SIZE, f"{path}, image {image_id}")
        for one in found:
            if "segmentation" in one:
                decode_mask(one["segmentation"], f"{path}, image {image_id}")


def use_coco_file(path):
    source = load(str(path), least_score=0.0)
    assert len(source(np.zeros((*SIZE, 3), np.uint8), path.parent / "a.jpg")) <= 4


class Photographs:
    """One photograph, its detections, the output of a part model, and the truth."""

    files = ("boxes/any.json", "photos.csv", "q/a.npz", "truth/a_persons.png", "photos/a.png")

    def write(self, folder):
        for path in self.files:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
        boxes = {"boxes": [[2, 2, 7, 9], [9, 3, 14, 11]], "scores": [0.9, 0.8]}
        (folder / self.files[0]).write_text(json.dumps({"a": boxes}))
        (folder / self.files[1]).write_text("name,truth_partial\na,0\n")
        np.savez(
            folder / self.files[2], person_logit=np.ones((1, 4, 5)), part_logits=np.ones((24, 4, 5))
        )
        Image.fromarray(parsing(False).object_map).save(folder / self.files[3])
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(folder / self.files[4])

    def read(self, folder):
        for found in find_photographs(folder):
            read_photograph(found, 16)


RLE = {"size": list(SIZE), "counts": [30, 5, 157]}
TEXT_RLE = {"size": list(SIZE), "counts": "n05m4"}
POLYGON = [[2, 3, 9, 3, 9, 8.5]]
DETECTION = {"image_id": "a", "category_id": 1, "bbox": [1, 2, 5, 4], "score": 0.5}
CATEGORIES = [{"id": 1, "name": "person", "supercategory": "person"}]
CASES = {
    "cihp predictions": Evaluated(
        "cihp",
        (
            *("predictions/instance_parsing/a.txt", "predictions/instance_segmentation/a.txt"),
            *("predictions/instance_parsing/a.png", "predictions/global_parsing/a.png"),
        ),
    ),
    "cihp truth": Evaluated(
        "cihp",
        ("truth/Category_ids/a.png", "truth/Human_ids/a.png", "truth/object_classes.json"),
        truth="classes",
    ),
    "official cihp truth": Evaluated("cihp", ("truth/a.txt", "truth/a.png"), truth="official"),
    "mhp predictions": Evaluated(
        "mhp",
        (
            *("predictions/results.txt", "predictions/global_tag/a.png"),
            "predictions/global_seg/a.png",
        ),
    ),
    "mhp truth": Evaluated("mhp", ("truth/parsing_annos/a_02_01.png",)),
    "tvg predictions": Evaluated("tvg", ("predictions/a.txt", "predictions/a.png")),
    "tvg truth": Evaluated(
        "tvg",
        (
            *("truth/SegmentationPart/a.png", "truth/SegmentationPartInstance/a.png"),
            "truth/SegmentationObject/a.png",
        ),
    ),
    "panoptic predictions": Evaluated(
        "panoptic", ("predictions/panoptic.json", "predictions/panoptic/a.png"), taxonomy=ZOO
    ),
    "panoptic truth": Evaluated(
        "panoptic", ("truth/panoptic.json", "truth/panoptic/a.png"), taxonomy=ZOO
    ),
    "partpq predictions": Evaluated("partpq", ("predictions/images.json", "predictions/a.png")),
    "coco predictions": Evaluated("coco", ("predictions/parts.json", "predictions/objects.json")),
    "coco truth": Evaluated("coco", ("truth/parts.json", "truth/objects.json")),
    "given detections": Alone(
        [DETECTION, DETECTION | {"segmentation": RLE}, DETECTION | {"segmentation": TEXT_RLE}],
        use_detections,
    ),
    "coco results": Alone(
        [
            DETECTION | {"segmentation": RLE, "keypoints": [1, 2, 0.5]},
            DETECTION | {"segmentation": POLYGON, "keypoints": [1, 2, 1]},
        ],
        lambda path: load(str(path), least_score=0.0, class_names={1: "person"})(
            np.zeros((*SIZE, 3), np.uint8), path.parent / "a.jpg"
        ),
    ),
    "coco file": Alone(
        {
            "images": [{"id": "a", "file_name": "a.jpg", "height": SIZE[0], "width": SIZE[1]}],
            "annotations": [DETECTION, DETECTION | {"iscrowd": 1}],
            "categories": CATEGORIES,
        },
        use_coco_file,
    ),
    "file of boxes": Alone(
        {"a": {"boxes": [[1, 2, 5, 6]], "scores": [0.5], "labels": ["person"]}}, use_coco_file
    ),
    "taxonomy": Alone(ZOO.to_dict() | {"flip_pairs": [[1, 2]]}, read_taxonomy),
    "photographs": Photographs(),
}

# --- what is done to them ---

JUNK = (
    *(None, True, False, -1, 0, 1, 2, 3, 0.5, -0.5, 1.5, 255, 256, 65536, 2**24, 2**31, 2**32 + 1),
    *(10**30, 1e300, math.nan, math.inf, -math.inf, "", "a", "1", "nan", "../a", "/a", "\0", "ÿ"),
    *("\ud800", "n05m4", "oooooooooooo", "0" * 50, [], {}, [[]], [None], [0], [[0, 0]], {"a": {}}),
    *([math.nan] * 6, [[math.nan] * 6], [[1e9] * 6], [[0, 0, 1e5, 0, 0, 1e5]], [[0] * 5]),
    *([1, 2, 3, 4], {"size": list(SIZE), "counts": "0" * 8}, {"size": list(SIZE), "counts": [5]}),
    *({"size": [1e9, 1e9], "counts": [10**18]}, {"size": list(SIZE), "counts": [-8, 200]}),
)
WORDS = (
    "",
    "x",
    "nan",
    "-1",
    "0",
    "1",
    "2",
    "3",
    "1.5",
    "4294967297",
    "1" * 40,
    "1_0",
    "../a",
    "\0",
)
ANY_JSON = st.recursive(
    st.sampled_from([v for v in JUNK if not isinstance(v, (list, dict))])
    | st.integers()
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "images",
                    "annotations",
                    "categories",
                    "id",
                    "a",
                    "segmentation",
                    "boxes",
                    "scores",
                ]
            )
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def places(value, path=()):
    """The paths of all values in a JSON."""
    yield path
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    for key, inner in items:
        yield from places(inner, (*path, key))


def changed(content, path, how, junk):
    """A copy in which the value at ``path`` is junk, missing, or there twice."""
    if not path:
        return junk
    content = copy.deepcopy(content)
    parent = content
    for key in path[:-1]:
        parent = parent[key]
    if how == "junk":
        parent[path[-1]] = junk
    elif how == "drop":
        del parent[path[-1]]
    elif isinstance(parent, list):
        parent.append(copy.deepcopy(parent[path[-1]]))
    return content


def draw_broken(data, path):
    """The new bytes of a file."""
    old = path.read_bytes()
    kinds = ["bytes", "cut", "empty", "utf-16"]
    if path.suffix == ".json":
        kinds += ["any json", *["changed"] * 12]
    elif path.suffix in (".txt", ".csv"):
        kinds += ["word"] * 12
    elif path.suffix == ".png":
        kinds += ["ids"] * 6
    kind = data.draw(st.sampled_from(kinds), "kind")
    if kind == "bytes":
        return data.draw(st.binary(max_size=40))
    if kind == "cut":
        return old[: data.draw(st.integers(0, len(old)))] + data.draw(st.binary(max_size=4))
    if kind == "utf-16":
        return "ÿ a".encode("utf-16") + old
    if kind == "any json":
        return json.dumps(data.draw(ANY_JSON)).encode()
    if kind == "changed":
        content = json.loads(old)
        place = data.draw(st.sampled_from(list(places(content))), "place")
        how = data.draw(st.sampled_from(["junk"] * 4 + ["drop", "twice"]), "how")
        junk = data.draw(st.sampled_from(JUNK), "junk")
        return json.dumps(changed(content, place, how, junk)).encode()
    if kind == "word":
        lines = [line.split(" ") for line in old.decode().split("\n")]
        row = data.draw(st.integers(0, len(lines) - 1))
        column = data.draw(st.integers(0, len(lines[row]) - 1))
        lines[row][column] = data.draw(st.sampled_from(WORDS))
        if data.draw(st.booleans()):
            lines.insert(row, lines[row])
        return "\n".join(map(" ".join, lines)).encode()
    if kind == "ids":
        return png_of_ids(data, path)
    return b""


def png_of_ids(data, path):
    """Another good picture: of other ids, size, bits or channels."""
    with Image.open(path) as image:
        ids = np.array(image)
    if data.draw(st.booleans(), "other size"):
        ids = ids[: data.draw(st.integers(1, 3))]
    bits = data.draw(st.sampled_from([np.uint8, np.uint16 if ids.ndim == 2 else np.uint8]), "bits")
    ids = ids.astype(bits)
    row, value = data.draw(st.integers(0, len(ids) - 1)), data.draw(st.sampled_from([0, 1, 3, 200]))
    ids[row] = min(value * 300 if bits is np.uint16 else value, np.iinfo(bits).max)
    if ids.ndim == 2 and bits is np.uint8 and data.draw(st.booleans(), "colour"):
        ids = np.stack([ids] * 3, -1)
    Image.fromarray(ids).save(path)
    return path.read_bytes()


def check(name, folder, examples):
    """The property of one reader; AssertionError or the reader's own error if it does not hold."""
    case, folder = CASES[name], Path(folder)
    case.write(folder / "good")
    case.read(folder / "good")  # bounded from here on
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))

    @settings(
        max_examples=examples,
        deadline=10_000,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def holds(data):
        work = folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(folder / "good", work)
        path = work / data.draw(st.sampled_from(case.files), "file")
        broken = draw_broken(data, path)
        path.unlink()
        if data.draw(st.integers(0, 15), "folder") == 0:
            path.mkdir()
        else:
            path.write_bytes(broken)
        try:
            case.read(work)
        except (ValueError, OSError) as error:
            message = f"{error} {getattr(error, 'filename', '')}"
            assert str(work) in message, f"names no file: {message}"
            assert "\n" not in str(error), message

    holds()
