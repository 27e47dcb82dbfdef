"""The benchmark data sets as records: folders, counts, class lists, where to get them. Nothing here reads a file.

Layouts, splits and the addresses of the split files are those of KaiyangZhou/CoOp, DATASETS.md and datasets/*.py, which
mlvlab/DAPT and MaPLe share; the md5 sums are those of pytorch/vision, torchvision/datasets, and for ImageNet-A and -R
of the sets' own pages. What is known of addresses that no longer answer is in docs/benchmarks.md.
"""

from dataclasses import dataclass

from daptune.errors import DataError, suggest


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


@dataclass(frozen=True)
class Benchmark:
    """One data set.

    name, title: ours, and that of the official code.
    folder, images: below the data root, and below that.
    counts: published images in train, val and test; 0 where there are none.
    layout: the reader in `layouts.READERS`.
    split_file: the authors' split, if there is one.
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
    split_file: str = ""
    notes: tuple[str, ...] = ()
    downloads: tuple[Download, ...] = ()
    manual: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()

    @property
    def target(self) -> bool:
        """Whether it is only tested on."""
        return not self.counts[0]


def _split(title: str, drive: str) -> Download:
    return Download(f"drive:{drive}", f"split_zhou_{title}.json")


_VGG = "https://www.robots.ox.ac.uk/~vgg/data"
_HENDRYCKS = "https://people.eecs.berkeley.edu/~hendrycks"
_GONE = "its address no longer answers"

_RECORDS = (
    Benchmark(
        "caltech101",
        "Caltech101",
        "caltech-101",
        "101_ObjectCategories",
        100,
        (4128, 1649, 2465),
        "class_folders",
        "https://data.caltech.edu/records/mzrjq-6wc02",
        "split_zhou_Caltech101.json",
        downloads=(
            Download(
                "https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
                "caltech-101.zip",
                "3138e1922a9193bfa496528edbbc45d0",
                (("101_ObjectCategories", "101_ObjectCategories"),),
                nested="caltech-101/101_ObjectCategories.tar.gz",
            ),
            _split("Caltech101", "1hyarUivQE36mY6jSomru6Fjd-JzwcCzN"),
        ),
    ),
    Benchmark(
        "oxford_pets",
        "OxfordPets",
        "oxford_pets",
        "images",
        37,
        (2944, 736, 3669),
        "pets",
        "https://www.robots.ox.ac.uk/~vgg/data/pets/",
        "split_zhou_OxfordPets.json",
        ("annotations/trainval.txt", "annotations/test.txt"),
        downloads=(
            Download(
                f"{_VGG}/pets/data/images.tar.gz",
                "images.tar.gz",
                "5c4f3ee8e5d25df40f4fd59a7f44e54c",
                (("images", "images"),),
            ),
            Download(
                f"{_VGG}/pets/data/annotations.tar.gz",
                "annotations.tar.gz",
                "95a8c909bbe2e81eed6a22bccdf3f68f",
                (("annotations", "annotations"),),
            ),
            _split("OxfordPets", "1501r8Ber4nNKvmlFVQZ8SeUHTcdTTEqs"),
        ),
        aliases=("pets",),
    ),
    Benchmark(
        "stanford_cars",
        "StanfordCars",
        "stanford_cars",
        ".",
        196,
        (6509, 1635, 8041),
        "cars",
        "https://github.com/pytorch/vision/issues/7545",
        "split_zhou_StanfordCars.json",
        ("devkit/cars_train_annos.mat", "devkit/cars_meta.mat", "cars_test_annos_withlabels.mat"),
        downloads=(_split("StanfordCars", "1ObCFbaAgVu0I-k_Au-gIUcefirdAuizT"),),
        manual=(
            f"the images: {_GONE}; the page above tells which copies hold the original file names. Put them into "
            "cars_train/ and cars_test/.",
        ),
        aliases=("cars",),
    ),
    Benchmark(
        "oxford_flowers",
        "OxfordFlowers",
        "oxford_flowers",
        "jpg",
        102,
        (4093, 1633, 2463),
        "flowers",
        "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
        "split_zhou_OxfordFlowers.json",
        ("imagelabels.mat", "cat_to_name.json"),
        downloads=(
            Download(
                f"{_VGG}/flowers/102/102flowers.tgz",
                "102flowers.tgz",
                "52808999861908f626f3c1f4e79d11fa",
                (("jpg", "jpg"),),
            ),
            Download(f"{_VGG}/flowers/102/imagelabels.mat", "imagelabels.mat", "e0620be6f572b9609742df49c70aed4d"),
            Download("drive:1AkcxCXeK_RCGCEC_GvmWxjcjaNhu-at0", "cat_to_name.json"),
            _split("OxfordFlowers", "1Pp0sRXzZFZq15zVOzKjKBu4A9i01nozT"),
        ),
        aliases=("flowers102", "flowers"),
    ),
    Benchmark(
        "food101",
        "Food101",
        "food-101",
        "images",
        101,
        (50500, 20200, 30300),
        "class_folders",
        "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
        "split_zhou_Food101.json",
        downloads=(
            Download(
                "http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
                "food-101.tar.gz",
                "85eeb15f3717b99a5da872d97d918f87",
                (("food-101/images", "images"), ("food-101/meta", "meta")),
            ),
            _split("Food101", "1QK0tGi096I0Ba6kggatX1ee6dJFIcEJl"),
        ),
    ),
    Benchmark(
        "fgvc_aircraft",
        "FGVCAircraft",
        "fgvc_aircraft",
        "images",
        100,
        (3334, 3333, 3333),
        "aircraft",
        "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/",
        notes=("variants.txt", *(f"images_variant_{part}.txt" for part in ("train", "val", "test"))),
        downloads=(
            Download(
                f"{_VGG}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
                "fgvc-aircraft-2013b.tar.gz",
                unpack=(("fgvc-aircraft-2013b/data", "."),),
            ),
        ),
        aliases=("aircraft",),
    ),
    Benchmark(
        "sun397",
        "SUN397",
        "sun397",
        "SUN397",
        397,
        (15880, 3970, 19850),
        "sun",
        "https://github.com/pytorch/vision/issues/9348",
        "split_zhou_SUN397.json",
        ("ClassName.txt", "Training_01.txt", "Testing_01.txt"),
        downloads=(_split("SUN397", "1y2RD81BYuiyvebdN-JymPfyWYcd8_MUq"),),
        manual=(
            f"the images: {_GONE}; whoever holds SUN397.tar.gz (md5 8ca2778205c41d23104230ba66911c7a) unpacks it here.",
        ),
    ),
    Benchmark(
        "dtd",
        "DescribableTextures",
        "dtd",
        "images",
        47,
        (2820, 1128, 1692),
        "class_folders",
        "https://www.robots.ox.ac.uk/~vgg/data/dtd/",
        "split_zhou_DescribableTextures.json",
        downloads=(
            Download(
                f"{_VGG}/dtd/download/dtd-r1.0.1.tar.gz",
                "dtd-r1.0.1.tar.gz",
                "fff73e5086ae6bdbea199a49dfb8a4c1",
                (("dtd/images", "images"),),
            ),
            _split("DescribableTextures", "1u3_QfB467jqHgNXC00UIzbLZRQCg2S7x"),
        ),
    ),
    Benchmark(
        "eurosat",
        "EuroSAT",
        "eurosat",
        "2750",
        10,
        (13500, 5400, 8100),
        "class_folders",
        "https://github.com/phelber/EuroSAT",
        "split_zhou_EuroSAT.json",
        downloads=(
            Download(
                "hub:torchgeo/eurosat/EuroSAT.zip@c877bcd43f099cd0196738f714544e355477f3fd",
                "EuroSAT.zip",
                "c8fa014336c82ac7804f0398fcb19387",
                (("2750", "2750"),),
            ),
            _split("EuroSAT", "1Ip7yaCWFi0eaOFUGga0lUdVi_DDQth1o"),
        ),
    ),
    Benchmark(
        "ucf101",
        "UCF101",
        "ucf101",
        "UCF-101-midframes",
        101,
        (7639, 1898, 3783),
        "ucf",
        "https://www.crcv.ucf.edu/data/UCF101.php",
        "split_zhou_UCF101.json",
        tuple(f"ucfTrainTestlist/{name}.txt" for name in ("classInd", "trainlist01", "testlist01")),
        downloads=(_split("UCF101", "1I0S0q91hJfsV9Gf4xDIjgDq4AqBNJb1y"),),
        manual=(
            "the middle frames: open https://drive.google.com/file/d/10Jqome3vtUA2keJkNanAiFpgbyC9Hc2O in a browser, "
            "for Drive asks before it gives out a file of this size, and unpack UCF-101-midframes.zip here.",
        ),
    ),
    Benchmark(
        "imagenet",
        "ImageNet",
        "imagenet",
        "images",
        1000,
        (1281167, 0, 50000),
        "imagenet",
        "https://image-net.org",
        manual=(
            "register at https://image-net.org, fetch ILSVRC2012_img_train.tar (md5 1d675b47d978889d74fa0da5fadfb00e) "
            "and ILSVRC2012_img_val.tar (md5 29b22e2961454d5413ddabcf34fc5622), and sort the images into "
            "images/train/<wnid>/ and images/val/<wnid>/; links to folders elsewhere will do.",
        ),
    ),
    Benchmark(
        "imagenetv2",
        "ImageNetV2",
        "imagenetv2",
        "imagenetv2-matched-frequency-format-val",
        1000,
        (0, 0, 10000),
        "numbered",
        "https://github.com/modestyachts/ImageNetV2",
        downloads=(
            Download(
                "hub:vaishaal/ImageNetV2/imagenetv2-matched-frequency.tar.gz",
                "imagenetv2-matched-frequency.tar.gz",
                unpack=(("imagenetv2-matched-frequency-format-val",) * 2,),
            ),
        ),
    ),
    Benchmark(
        "imagenet_sketch",
        "ImageNetSketch",
        "imagenet-sketch",
        "images",
        1000,
        (0, 0, 50889),
        "wnids",
        "https://github.com/HaohanWang/ImageNet-Sketch",
        downloads=(
            Download(
                "hub:songweig/imagenet_sketch/data/ImageNet-Sketch.zip",
                "ImageNet-Sketch.zip",
                unpack=(("sketch", "images"),),
            ),
        ),
    ),
    Benchmark(
        "imagenet_a",
        "ImageNetA",
        "imagenet-adversarial",
        "imagenet-a",
        200,
        (0, 0, 7500),
        "wnids",
        "https://github.com/hendrycks/natural-adv-examples",
        downloads=(
            Download(
                f"{_HENDRYCKS}/imagenet-a.tar",
                "imagenet-a.tar",
                "c3e55429088dc681f30d81f4726b6595",
                (("imagenet-a", "imagenet-a"),),
            ),
        ),
    ),
    Benchmark(
        "imagenet_r",
        "ImageNetR",
        "imagenet-rendition",
        "imagenet-r",
        200,
        (0, 0, 30000),
        "wnids",
        "https://github.com/hendrycks/imagenet-r",
        downloads=(
            Download(
                f"{_HENDRYCKS}/imagenet-r.tar",
                "imagenet-r.tar",
                "a61312130a589d0ca1a8fca1f2bd3337",
                (("imagenet-r", "imagenet-r"),),
            ),
        ),
    ),
)

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
