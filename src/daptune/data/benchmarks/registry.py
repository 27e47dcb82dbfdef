"""The benchmark data sets as records: folders, counts, class lists, where to get them. Nothing here reads a file.

Layouts, splits and the addresses of the split files are those of KaiyangZhou/CoOp, DATASETS.md and datasets/*.py, which
mlvlab/DAPT and MaPLe share; the md5 sums are those of pytorch/vision, torchvision/datasets, and for ImageNet-A and -R
of the sets' own pages. What is known of addresses that no longer answer is in docs/benchmarks.md.
"""

from dataclasses import dataclass
from pathlib import PurePosixPath

from daptune.errors import DataError, suggest

_SPLIT = "split_zhou_{}.json"


@dataclass(frozen=True)
class Download:
    """One file to fetch.

    address: http(s); `drive:ID` for a small file of Google Drive; `hub:ORG/REPO/FILE[@REVISION]` for one of a data set
        of the Hugging Face hub.
    file: its name on this machine, below the data set's folder.
    unpack: (path in the archive, path below the data set's folder) of what is wanted of it; none: the file itself.
    nested: an archive within the archive, which is unpacked in its place.
    """

    address: str
    file: str
    md5: str = ""
    unpack: tuple[tuple[str, str], ...] = ()
    nested: str = ""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One data set.

    name, title: ours, and that of the official code.
    folder, images: below the data root, and below that.
    counts: published images in train, val and test; 0 where there are none.
    layout: the reader in `layouts.READERS`.
    notes: files that the layout reads where the split file is not there.
    manual: what to do by hand where nothing can be fetched.
    """

    name: str
    title: str
    folder: str
    images: str
    classes: int
    counts: tuple[int, int, int]
    layout: str
    page: str
    notes: tuple[str, ...] = ()
    downloads: tuple[Download, ...] = ()
    manual: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()

    @property
    def target(self) -> bool:
        """Whether it is only tested on."""
        return not self.counts[0]

    @property
    def split_file(self) -> str:
        """The name of the authors' split, one of the downloads; empty where there is none."""
        own = _SPLIT.format(self.title)
        return own if any(download.file == own for download in self.downloads) else ""


def _file(address: str, md5: str = "", *folders: str | tuple[str, str], nested: str = "") -> Download:
    """A download under the name that it has there; a folder of the archive keeps its name, or is given another."""
    pairs = tuple((path, PurePosixPath(path).name) if isinstance(path, str) else path for path in folders)
    return Download(address, PurePosixPath(address.partition("@")[0]).name, md5, pairs, nested)


def _split(title: str, drive: str) -> Download:
    return Download(f"drive:{drive}", _SPLIT.format(title))


_VGG = "https://www.robots.ox.ac.uk/~vgg/data"
_HENDRYCKS = "https://people.eecs.berkeley.edu/~hendrycks"
_CALTECH = "https://data.caltech.edu/records/mzrjq-6wc02"
_GONE = "its address no longer answers"

# fmt: off
_RECORDS = (
    Benchmark(
        name="caltech101", title="Caltech101", folder="caltech-101", images="101_ObjectCategories",
        classes=100, counts=(4128, 1649, 2465), layout="class_folders", page=_CALTECH,
        downloads=(
            _file(f"{_CALTECH}/files/caltech-101.zip", "3138e1922a9193bfa496528edbbc45d0", "101_ObjectCategories",
                  nested="caltech-101/101_ObjectCategories.tar.gz"),
            _split("Caltech101", "1hyarUivQE36mY6jSomru6Fjd-JzwcCzN"),
        ),
    ),
    Benchmark(
        name="oxford_pets", title="OxfordPets", aliases=("pets",), folder="oxford_pets", images="images",
        classes=37, counts=(2944, 736, 3669), layout="pets", page=f"{_VGG}/pets/",
        notes=("annotations/trainval.txt", "annotations/test.txt"),
        downloads=(
            _file(f"{_VGG}/pets/data/images.tar.gz", "5c4f3ee8e5d25df40f4fd59a7f44e54c", "images"),
            _file(f"{_VGG}/pets/data/annotations.tar.gz", "95a8c909bbe2e81eed6a22bccdf3f68f", "annotations"),
            _split("OxfordPets", "1501r8Ber4nNKvmlFVQZ8SeUHTcdTTEqs"),
        ),
    ),
    Benchmark(
        name="stanford_cars", title="StanfordCars", aliases=("cars",), folder="stanford_cars", images=".",
        classes=196, counts=(6509, 1635, 8041), layout="cars", page="https://github.com/pytorch/vision/issues/7545",
        notes=("devkit/cars_train_annos.mat", "devkit/cars_meta.mat", "cars_test_annos_withlabels.mat"),
        downloads=(_split("StanfordCars", "1ObCFbaAgVu0I-k_Au-gIUcefirdAuizT"),),
        manual=(
            f"the images: {_GONE}; the page above tells which copies hold the original file names. Put them into "
            "cars_train/ and cars_test/.",
        ),
    ),
    Benchmark(
        name="oxford_flowers", title="OxfordFlowers", aliases=("flowers102", "flowers"), folder="oxford_flowers",
        images="jpg", classes=102, counts=(4093, 1633, 2463), layout="flowers", page=f"{_VGG}/flowers/102/",
        notes=("imagelabels.mat", "cat_to_name.json"),
        downloads=(
            _file(f"{_VGG}/flowers/102/102flowers.tgz", "52808999861908f626f3c1f4e79d11fa", "jpg"),
            _file(f"{_VGG}/flowers/102/imagelabels.mat", "e0620be6f572b9609742df49c70aed4d"),
            Download("drive:1AkcxCXeK_RCGCEC_GvmWxjcjaNhu-at0", "cat_to_name.json"),
            _split("OxfordFlowers", "1Pp0sRXzZFZq15zVOzKjKBu4A9i01nozT"),
        ),
    ),
    Benchmark(
        name="food101", title="Food101", folder="food-101", images="images",
        classes=101, counts=(50500, 20200, 30300), layout="class_folders",
        page="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
        downloads=(
            _file("http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz", "85eeb15f3717b99a5da872d97d918f87",
                  "food-101/images", "food-101/meta"),
            _split("Food101", "1QK0tGi096I0Ba6kggatX1ee6dJFIcEJl"),
        ),
    ),
    Benchmark(
        name="fgvc_aircraft", title="FGVCAircraft", aliases=("aircraft",), folder="fgvc_aircraft", images="images",
        classes=100, counts=(3334, 3333, 3333), layout="aircraft", page=f"{_VGG}/fgvc-aircraft/",
        notes=("variants.txt", *(f"images_variant_{part}.txt" for part in ("train", "val", "test"))),
        downloads=(
            _file(f"{_VGG}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz", "", ("fgvc-aircraft-2013b/data", ".")),
        ),
    ),
    Benchmark(
        name="sun397", title="SUN397", folder="sun397", images="SUN397",
        classes=397, counts=(15880, 3970, 19850), layout="sun", page="https://github.com/pytorch/vision/issues/9348",
        notes=("ClassName.txt", "Training_01.txt", "Testing_01.txt"),
        downloads=(_split("SUN397", "1y2RD81BYuiyvebdN-JymPfyWYcd8_MUq"),),
        manual=(
            f"the images: {_GONE}; whoever holds SUN397.tar.gz (md5 8ca2778205c41d23104230ba66911c7a) unpacks it here.",
        ),
    ),
    Benchmark(
        name="dtd", title="DescribableTextures", folder="dtd", images="images",
        classes=47, counts=(2820, 1128, 1692), layout="class_folders", page=f"{_VGG}/dtd/",
        downloads=(
            _file(f"{_VGG}/dtd/download/dtd-r1.0.1.tar.gz", "fff73e5086ae6bdbea199a49dfb8a4c1", "dtd/images"),
            _split("DescribableTextures", "1u3_QfB467jqHgNXC00UIzbLZRQCg2S7x"),
        ),
    ),
    Benchmark(
        name="eurosat", title="EuroSAT", folder="eurosat", images="2750",
        classes=10, counts=(13500, 5400, 8100), layout="class_folders", page="https://github.com/phelber/EuroSAT",
        downloads=(
            _file("hub:torchgeo/eurosat/EuroSAT.zip@c877bcd43f099cd0196738f714544e355477f3fd",
                  "c8fa014336c82ac7804f0398fcb19387", "2750"),
            _split("EuroSAT", "1Ip7yaCWFi0eaOFUGga0lUdVi_DDQth1o"),
        ),
    ),
    Benchmark(
        name="ucf101", title="UCF101", folder="ucf101", images="UCF-101-midframes",
        classes=101, counts=(7639, 1898, 3783), layout="ucf", page="https://www.crcv.ucf.edu/data/UCF101.php",
        notes=tuple(f"ucfTrainTestlist/{name}.txt" for name in ("classInd", "trainlist01", "testlist01")),
        downloads=(_split("UCF101", "1I0S0q91hJfsV9Gf4xDIjgDq4AqBNJb1y"),),
        manual=(
            "the middle frames: open https://drive.google.com/file/d/10Jqome3vtUA2keJkNanAiFpgbyC9Hc2O in a browser, "
            "for Drive asks before it gives out a file of this size, and unpack UCF-101-midframes.zip here.",
        ),
    ),
    Benchmark(
        name="imagenet", title="ImageNet", folder="imagenet", images="images",
        classes=1000, counts=(1281167, 0, 50000), layout="imagenet", page="https://image-net.org",
        manual=(
            "register at https://image-net.org, fetch ILSVRC2012_img_train.tar (md5 1d675b47d978889d74fa0da5fadfb00e) "
            "and ILSVRC2012_img_val.tar (md5 29b22e2961454d5413ddabcf34fc5622), and sort the images into "
            "images/train/<wnid>/ and images/val/<wnid>/; links to folders elsewhere will do.",
        ),
    ),
    Benchmark(
        name="imagenetv2", title="ImageNetV2", folder="imagenetv2", images="imagenetv2-matched-frequency-format-val",
        classes=1000, counts=(0, 0, 10000), layout="numbered", page="https://github.com/modestyachts/ImageNetV2",
        downloads=(
            _file("hub:vaishaal/ImageNetV2/imagenetv2-matched-frequency.tar.gz", "",
                  "imagenetv2-matched-frequency-format-val"),
        ),
    ),
    Benchmark(
        name="imagenet_sketch", title="ImageNetSketch", folder="imagenet-sketch", images="images",
        classes=1000, counts=(0, 0, 50889), layout="wnids", page="https://github.com/HaohanWang/ImageNet-Sketch",
        downloads=(_file("hub:songweig/imagenet_sketch/data/ImageNet-Sketch.zip", "", ("sketch", "images")),),
    ),
    Benchmark(
        name="imagenet_a", title="ImageNetA", folder="imagenet-adversarial", images="imagenet-a",
        classes=200, counts=(0, 0, 7500), layout="wnids", page="https://github.com/hendrycks/natural-adv-examples",
        downloads=(_file(f"{_HENDRYCKS}/imagenet-a.tar", "c3e55429088dc681f30d81f4726b6595", "imagenet-a"),),
    ),
    Benchmark(
        name="imagenet_r", title="ImageNetR", folder="imagenet-rendition", images="imagenet-r",
        classes=200, counts=(0, 0, 30000), layout="wnids", page="https://github.com/hendrycks/imagenet-r",
        downloads=(_file(f"{_HENDRYCKS}/imagenet-r.tar", "a61312130a589d0ca1a8fca1f2bd3337", "imagenet-r"),),
    ),
)
# fmt: on

BENCHMARKS = {record.name: record for record in _RECORDS}
"""Every data set by its name, in the order of the paper's figures, the four targets last."""


def find(name: str) -> Benchmark:
    """The record of a name in any usual spelling (`oxford_pets`, `OxfordPets`, `imagenet-a`, `flowers102`)."""
    known: dict[str, str] = {}
    for record in BENCHMARKS.values():
        for spelling in (record.name, record.title, record.folder, *record.aliases):
            known.setdefault(_plain(spelling), record.name)
    if _plain(name) not in known:
        raise DataError(f"no benchmark data set is called {name!r}.{suggest(name, BENCHMARKS)}")
    return BENCHMARKS[known[_plain(name)]]


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
