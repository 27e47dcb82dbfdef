"""The fifteen data sets in miniature: the true folders, file names and annotation formats, a few pictures of 8 pixels.

`build` writes one below a root and returns the record of it (its true one with the miniature's counts) with what the
reader should make of it: class names in the order of the labels.
"""

import io
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from daptune.data.benchmarks.registry import BENCHMARKS, Benchmark

_stream = io.BytesIO()
Image.new("RGB", (8, 8), (90, 120, 60)).save(_stream, "JPEG")
JPEG = _stream.getvalue()

Built = tuple[tuple[int, int, int], list[str]]  # images in train, val and test, and class names


def pictures(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(JPEG)


def lines(path: Path, rows: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")


def folders_of_classes(images: Path, counts: dict[str, int]) -> None:
    for name, count in counts.items():
        pictures(images / name, (f"{name.lower()}_{number:04d}.jpg" for number in range(count)))


def caltech101(folder: Path) -> Built:
    images = folder / "101_ObjectCategories"
    folders_of_classes(images, {"Faces": 10, "Faces_easy": 10, "BACKGROUND_Google": 7, "airplanes": 8, "wild_cat": 5})
    (images / "BACKGROUND_Google" / "tmp").write_text("left behind by the makers")
    return (11, 5, 7), ["face", "airplane", "wild_cat"]  # round() goes to the even number: 5 + 4 + 2, 2 + 2 + 1


def food101(folder: Path) -> Built:
    folders_of_classes(folder / "images", {"apple_pie": 10, "waffles": 10})
    return (10, 4, 6), ["apple_pie", "waffles"]


def dtd(folder: Path) -> Built:
    folders_of_classes(folder / "images", {"banded": 10, "dotted": 10, "zigzagged": 10})
    (folder / "images" / "waffled").mkdir()
    (folder / "images" / "waffled" / ".directory").write_text("hidden")
    pictures(folder / "images" / "waffled", [f"waffled_{n}.jpg" for n in range(10)])
    return (20, 8, 12), ["banded", "dotted", "waffled", "zigzagged"]


def eurosat(folder: Path) -> Built:
    folders_of_classes(folder / "2750", {"AnnualCrop": 10, "Forest": 10, "SeaLake": 10})
    return (15, 6, 9), ["Annual Crop Land", "Forest", "Sea or Lake"]


def oxford_pets(folder: Path) -> Built:
    breeds = [("Abyssinian", 1, 1), ("american_bulldog", 2, 2), ("Egyptian_Mau", 3, 1)]
    trainval = [f"{breed}_{n} {label} {species} 1" for breed, label, species in breeds for n in (100, 2, 33, 4, 5)]
    test = [f"{breed}_{n} {label} {species} 1" for breed, label, species in breeds for n in (201, 202)]
    lines(folder / "annotations" / "trainval.txt", trainval)
    lines(folder / "annotations" / "test.txt", test)
    pictures(folder / "images", [f"{row.split()[0]}.jpg" for row in trainval + test])
    return (12, 3, 6), ["abyssinian", "american_bulldog", "egyptian_mau"]


def stanford_cars(folder: Path) -> Built:
    names = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012"]
    (folder / "devkit").mkdir(parents=True)

    def annotations(part: str, count: int) -> dict[str, object]:
        fields = [("bbox_x1", object), ("class", object), ("fname", object)]
        rows = [(np.uint8(n), np.uint8(n % 2 + 1), f"{n + 1:05d}.jpg") for n in range(count)]
        pictures(folder / part, [row[2] for row in rows])
        return {"annotations": np.array(rows, dtype=fields)}

    savemat(folder / "devkit" / "cars_train_annos.mat", annotations("cars_train", 10))
    savemat(folder / "cars_test_annos_withlabels.mat", annotations("cars_test", 4))
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": np.array(names, dtype=object)})
    return (8, 2, 4), ["2000 AM General Hummer SUV", "2012 Acura RL Sedan"]


def oxford_flowers(folder: Path) -> Built:
    folder.mkdir(parents=True)
    labels = np.array([[2] * 10 + [1] * 10], dtype=np.uint8)
    savemat(folder / "imagelabels.mat", {"labels": labels})
    (folder / "cat_to_name.json").write_text(json.dumps({"1": "pink primrose", "2": "sword lily"}))
    pictures(folder / "jpg", [f"image_{n:05d}.jpg" for n in range(1, 21)])
    return (10, 4, 6), ["pink primrose", "sword lily"]


def fgvc_aircraft(folder: Path) -> Built:
    variants = ["707-320", "DHC-8-100", "F-16A/B", "Model B200"]
    lines(folder / "variants.txt", variants)
    number = 34309
    for part in ("train", "val", "test"):
        rows = []
        for variant in variants:
            number += 1
            rows.append(f"{number:07d} {variant}")
        lines(folder / f"images_variant_{part}.txt", rows)
        pictures(folder / "images", [f"{row.split()[0]}.jpg" for row in rows])
    return (4, 4, 4), variants


def sun397(folder: Path) -> Built:
    places = ["/a/abbey", "/a/athletic_field/outdoor", "/z/zen_garden"]
    lines(folder / "ClassName.txt", places)
    training = [f"{place}/sun_{n:03d}.jpg" for place in places for n in range(5)]
    testing = [f"{place}/sun_{n:03d}.jpg" for place in places for n in (8, 9)]
    lines(folder / "Training_01.txt", training)
    lines(folder / "Testing_01.txt", testing)
    pictures(folder / "SUN397", [row[1:] for row in training + testing])
    return (12, 3, 6), ["abbey", "outdoor athletic_field", "zen_garden"]


def ucf101(folder: Path) -> Built:
    actions = {"ApplyEyeMakeup": "Apply_Eye_Makeup", "YoYo": "Yo_Yo"}
    lines(folder / "ucfTrainTestlist" / "classInd.txt", [f"{n} {name}" for n, name in enumerate(actions, 1)])
    train = [f"{name}/v_{name}_g{n:02d}_c01.avi" for name in actions for n in range(8, 13)]
    test = [f"{name}/v_{name}_g01_c{n:02d}.avi" for name in actions for n in (1, 2)]
    numbers = {name: number for number, name in enumerate(actions, 1)}
    lines(folder / "ucfTrainTestlist" / "trainlist01.txt", [f"{row} {numbers[row.split('/')[0]]}" for row in train])
    lines(folder / "ucfTrainTestlist" / "testlist01.txt", test)
    for row in train + test:
        action, _, file = row.partition("/")
        pictures(folder / "UCF-101-midframes" / actions[action], [file.replace(".avi", ".jpg")])
    return (8, 2, 4), list(actions.values())


def imagenet(folder: Path) -> Built:
    for wnid in ("n04008634", "n01440764", "n03773504"):
        pictures(folder / "images" / "train" / wnid, [f"{wnid}_{n}.JPEG" for n in (12, 3, 1)])
        pictures(folder / "images" / "val" / wnid, [f"ILSVRC2012_val_{n:08d}.JPEG" for n in (1, 2)])
    return (9, 0, 6), ["tench", "missile", "missile_"]


def imagenetv2(folder: Path) -> Built:
    lines(folder / "classnames.txt", ["n01440764 tench", "n01443537 goldfish", "n01484850 great white shark"])
    for number in range(3):
        place = folder / "imagenetv2-matched-frequency-format-val" / str(number)
        pictures(place, [f"{number}{letter}.jpeg" for letter in "ab"])
    return (0, 0, 6), ["tench", "goldfish", "great white shark"]


def imagenet_sketch(folder: Path) -> Built:
    for wnid in ("n01443537", "n01440764"):
        pictures(folder / "images" / wnid, [f"sketch_{n}.JPEG" for n in range(3)])
    return (0, 0, 6), ["tench", "goldfish"]


def _renditions(folder: Path) -> Built:
    pictures(folder / "n02099601", ["art_1.jpg", "art_2.jpg"])
    pictures(folder / "n01443537", ["art_1.jpg", "art_2.jpg", "art_3.jpg"])
    (folder / "README.txt").write_text("200 classes")
    return (0, 0, 5), ["goldfish", "Golden Retriever"]


BUILDERS: dict[str, Callable[[Path], Built]] = {
    builder.__name__: builder
    for builder in (
        caltech101, oxford_pets, stanford_cars, oxford_flowers, food101, fgvc_aircraft, sun397, dtd, eurosat, ucf101,
        imagenet, imagenetv2, imagenet_sketch,
    )
} | {
    "imagenet_a": lambda folder: _renditions(folder / "imagenet-a"),
    "imagenet_r": lambda folder: _renditions(folder / "imagenet-r"),
}  # fmt: skip


def build(name: str, root: Path) -> tuple[Benchmark, list[str]]:
    counts, names = BUILDERS[name](root / BENCHMARKS[name].folder)
    return replace(BENCHMARKS[name], classes=len(names), counts=counts), names
