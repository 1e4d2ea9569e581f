"""Published data sets as tiny folders: one picture of 60×40 px, on which a car is a box.

Each builder writes what the data set's own page or program writes; the values of its masks are
those of its documentation.
"""

import base64
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from tests.backend.dataset.drawn_tasks import saved

SIZE_HW = (40, 60)
LEFT, TOP, RIGHT, BOTTOM = 10, 5, 30, 20
CAR = np.zeros(SIZE_HW, np.bool_)
CAR[TOP:BOTTOM, LEFT:RIGHT] = True
CORNERS = [[LEFT, TOP], [RIGHT, TOP], [RIGHT, BOTTOM], [LEFT, BOTTOM]]
FLAT = [number for corner in CORNERS for number in corner]

Build = Callable[[Path], Any]


class Writer:
    """Writes files below a folder, with the folders that they lie in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def place(self, name: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def text(self, name: str, text: str) -> None:
        self.place(name).write_text(text)

    def json(self, name: str, content: Any) -> None:
        self.text(name, json.dumps(content))

    def picture(self, name: str) -> None:
        Image.new("RGB", SIZE_HW[::-1], (90, 120, 150)).save(self.place(name))

    def values(self, name: str, car: int, others: int) -> None:
        """Write a grey label map."""
        Image.fromarray(np.where(CAR, car, others).astype(np.uint8)).save(self.place(name))

    def colours(self, name: str, car: tuple[int, ...], others: tuple[int, ...] = (0, 0, 0)) -> None:
        """Write a label map in colour."""
        self.rgb(name, np.where(CAR[..., None], car, others).astype(np.uint8))

    def rgb(self, name: str, rgb: npt.NDArray[np.uint8]) -> None:
        Image.fromarray(rgb).save(self.place(name))


def voc_devkit(to: Writer) -> None:
    to.picture("VOCdevkit/VOC2012/JPEGImages/2007_000032.jpg")
    to.values("VOCdevkit/VOC2012/SegmentationClass/2007_000032.png", 7, 0)
    to.values("VOCdevkit/VOC2012/SegmentationObject/2007_000032.png", 1, 0)
    to.text(
        "VOCdevkit/VOC2012/Annotations/2007_000032.xml",
        "<annotation><object><name>car</name><bndbox><xmin>10</xmin></bndbox></object></annotation>",
    )
    to.text("VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt", "2007_000032\n")


def cvat_mask(to: Writer) -> None:
    """CVAT's "Segmentation mask 1.1"."""
    to.text(
        "labelmap.txt",
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncar:128,64,32::\n",
    )
    to.colours("SegmentationClass/a.png", (128, 64, 32))
    to.colours("SegmentationObject/a.png", (9, 9, 9))
    to.picture("JPEGImages/a.jpg")
    to.text("ImageSets/Segmentation/default.txt", "a\n")


def labelme2voc(to: Writer) -> None:
    to.text("class_names.txt", "_background_\ncar\n")
    to.values("SegmentationClass/a.png", 1, 0)
    to.picture("SegmentationClassVisualization/a.jpg")
    to.picture("JPEGImages/a.jpg")


def cityscapes(to: Writer) -> None:
    start = "gtFine/train/ulm/ulm_000000_000019"
    to.values(f"{start}_gtFine_labelIds.png", 26, 0)
    to.values(f"{start}_gtFine_instanceIds.png", 26, 0)
    to.colours(f"{start}_gtFine_color.png", (0, 0, 142))
    to.json(f"{start}_gtFine_polygons.json", {"imgHeight": 40, "imgWidth": 60, "objects": []})
    to.picture("leftImg8bit/train/ulm/ulm_000000_000019_leftImg8bit.png")


def cityscapes_train_ids(to: Writer) -> None:
    to.values("gtFine/train/ulm/ulm_000000_000019_gtFine_labelTrainIds.png", 13, 255)
    to.picture("leftImg8bit/train/ulm/ulm_000000_000019_leftImg8bit.png")


def kitti(to: Writer) -> None:
    for folder, car in (("semantic", 26), ("instance", 6)):
        to.values(f"training/{folder}/000000_10.png", car, 0)
    to.colours("training/semantic_rgb/000000_10.png", (0, 0, 142))
    to.picture("training/image_2/000000_10.png")


def kitti_of_datumaro(to: Writer) -> None:
    """Its classes are its own, in a file."""
    to.text("label_colors.txt", "0 0 0 background\n128 0 0 car\n0 128 0 sky\n")
    to.values("default/semantic/a.png", 1, 0)
    to.colours("default/semantic_rgb/a.png", (128, 0, 0))
    to.picture("default/image_2/a.png")


def bdd100k(to: Writer) -> None:
    to.values("labels/sem_seg/masks/train/0004a4c0.png", 13, 255)
    to.colours("labels/sem_seg/colormaps/train/0004a4c0.png", (0, 0, 142))
    to.picture("images/10k/train/0004a4c0.jpg")


def mapillary(to: Writer, version: str = "v1.2") -> None:
    names = ("Bird", "Car", "Unlabeled")
    labels = [{"name": f"x--{n.lower()}", "readable": n, "color": [1, 2, 3]} for n in names]
    to.json(f"config_{version}.json", {"labels": labels, "version": "1.1"})
    to.values(f"training/{version}/labels/abc.png", 1, 2)
    to.colours(f"training/{version}/instances/abc.png", (1, 0, 0))
    to.picture("training/images/abc.jpg")


def mapillary_2(to: Writer) -> None:
    mapillary(to, "v2.0")


def camvid(to: Writer) -> None:
    to.text("label_colors.txt", "64 128 64\tAnimal\n64 0 128\t\tCar\n0 0 0\t\tVoid\n")
    to.colours("LabeledApproved_full/0001TP_006690_L.png", (64, 0, 128))
    to.picture("701_StillsRaw_full/0001TP_006690.png")


def camvid_of_segnet(to: Writer) -> None:
    line = "/SegNet/CamVid/train/0001TP_006690.png /SegNet/CamVid/trainannot/0001TP_006690.png\n"
    to.text("train.txt", line)
    to.values("trainannot/0001TP_006690.png", 8, 11)
    to.picture("train/0001TP_006690.png")


def camvid_of_kaggle(to: Writer) -> None:
    to.text("class_dict.csv", "name,r,g,b\nAnimal,64,128,64\nCar,64,0,128\nVoid,0,0,0\n")
    to.colours("train_labels/0001TP_006690_L.png", (64, 0, 128))
    to.picture("train/0001TP_006690.png")


def deepglobe(to: Writer) -> None:
    to.text("class_dict.csv", "name,r,g,b\ncar,0,255,255\nunknown,0,0,0\n")
    to.colours("train/119_mask.png", (0, 255, 255))
    to.picture("train/119_sat.jpg")


def ade20k(to: Writer) -> None:
    rows = "1\t0.15\t11664\t1172\twall\n2\t0.11\t6046\t612\tcar, auto, automobile\n"
    to.text("objectInfo150.txt", f"Idx\tRatio\tTrain\tVal\tName\n{rows}")
    to.text("sceneCategories.txt", "ADE_train_00000001 airport_terminal\n")
    to.values("annotations/training/ADE_train_00000001.png", 2, 0)
    to.picture("images/training/ADE_train_00000001.jpg")


def coco_stuff(to: Writer) -> None:
    to.text("labels.txt", "0: unlabeled\n1: person\n2: bicycle\n3: car\n")
    to.values("stuffthingmaps/train2017/000000000009.png", 2, 255)
    to.picture("images/train2017/000000000009.jpg")


def roboflow_png(to: Writer) -> None:
    to.text("train/_classes.csv", "Pixel Value, Class\n0, background\n1, car\n")
    to.text("README.roboflow.txt", "exported")
    to.values("train/a_jpg.rf.0123abcd_mask.png", 1, 0)
    to.picture("train/a_jpg.rf.0123abcd.jpg")


def loveda(to: Writer) -> None:
    to.values("Train/Rural/masks_png/0.png", 3, 0)
    to.picture("Train/Rural/images_png/0.png")


def oxford_pet(to: Writer) -> None:
    to.values("annotations/trimaps/Abyssinian_1.png", 1, 2)
    to.text("annotations/list.txt", "Abyssinian_1 1 1 1\n")
    to.text("annotations/xmls/Abyssinian_1.xml", "<annotation><object><bndbox>")
    to.picture("images/Abyssinian_1.jpg")


def own(to: Writer) -> None:
    to.json("classes.json", {"classes": [{"value": 0, "name": "car"}], "nothing": 255})
    to.values("masks/a.png", 0, 255)
    to.picture("images/a.jpg")
    to.text("splits/train.txt", "a\n")


def folders_of_classes(to: Writer) -> None:
    to.values("car/a.png", 255, 0)
    to.values("tree/a.png", 0, 0)
    to.picture("pictures/a.jpg")


# ---- files of annotations ------------------------------------------------------------------------


def coco(to: Writer, **image: Any) -> None:
    image_ = {"id": 1, "height": 40, "width": 60} | (image or {"file_name": "a.jpg"})
    thing = {"id": 1, "image_id": 1, "category_id": 3, "segmentation": [FLAT], "iscrowd": 0}
    to.json(
        "annotations/instances_val2017.json",
        {
            "images": [image_],
            "annotations": [thing],
            "categories": [{"id": 3, "name": "car"}],
        },
    )
    to.picture("val2017/a.jpg")


def coco_2017(to: Writer) -> None:
    """All files of its annotations."""
    coco(to)
    images = [{"id": 1, "file_name": "a.jpg", "height": 40, "width": 60}]
    for name in ("captions", "person_keypoints"):
        categories = [{"id": 1, "name": "person"}]
        told = {"images": images, "annotations": [], "categories": categories}
        to.json(f"annotations/{name}_val2017.json", told)


def lvis(to: Writer) -> None:
    coco(to, coco_url="http://images.cocodataset.org/val2017/a.jpg", neg_category_ids=[7])


def coco_panoptic(to: Writer) -> None:
    segments = [{"id": 1 + 2 * 256 + 3 * 65536, "category_id": 3, "iscrowd": 0, "area": 300}]
    row = {"image_id": 9, "file_name": "a.png", "segments_info": segments}
    to.json(
        "annotations/panoptic_val2017.json",
        {
            "images": [{"id": 9, "file_name": "a.jpg"}],
            "annotations": [row],
            "categories": [{"id": 3, "name": "car", "isthing": 1}],
        },
    )
    to.colours("annotations/panoptic_val2017/a.png", (1, 2, 3))
    to.picture("val2017/a.jpg")


def roboflow_coco(to: Writer) -> None:
    name = "a_jpg.rf.0123abcd.jpg"
    thing = {"id": 0, "image_id": 0, "category_id": 1, "segmentation": [FLAT], "iscrowd": 0}
    to.json(
        "train/_annotations.coco.json",
        {
            "images": [{"id": 0, "file_name": name, "height": 40, "width": 60}],
            "annotations": [thing],
            "categories": [{"id": 0, "name": "cars"}, {"id": 1, "name": "car"}],
        },
    )
    to.picture(f"train/{name}")
    to.text("README.roboflow.txt", "exported")


def segment_anything(to: Writer) -> None:
    packed = coco_mask.encode(np.asfortranarray(CAR.astype(np.uint8)))
    row = {"id": 1, "segmentation": {"size": [40, 60], "counts": packed["counts"].decode()}}
    image = {"image_id": 1, "width": 60, "height": 40, "file_name": "sa_1.jpg"}
    to.json("sa_1.json", {"image": image, "annotations": [row]})
    to.picture("sa_1.jpg")


def yolo(to: Writer, folder: str = "labels/train", pictures: str = "images/train") -> None:
    # Ultralytics fills to the centres of pixels.
    corners = [(LEFT, TOP), (RIGHT - 1, TOP), (RIGHT - 1, BOTTOM - 1), (LEFT, BOTTOM - 1)]
    numbers = [f"{(x + 0.5) / 60:.6f} {(y + 0.5) / 40:.6f}" for x, y in corners]
    to.text(f"{folder}/a.txt", f"0 {' '.join(numbers)}\n")
    to.text("data.yaml", "train: images/train\nnames:\n  0: car\n")
    to.picture(f"{pictures}/a.jpg")


def roboflow_yolo(to: Writer) -> None:
    yolo(to, "train/labels", "train/images")
    to.text("README.roboflow.txt", "exported")


def labelme(to: Writer, *shapes: Any) -> None:
    some = shapes or ({"label": "car", "points": CORNERS, "shape_type": "polygon"},)
    head = {"version": "5.4.1", "flags": {}, "shapes": some, "imagePath": "a.jpg"}
    to.json("a.json", head | {"imageData": None, "imageHeight": 40, "imageWidth": 60})
    to.picture("a.jpg")


def x_anylabeling(to: Writer) -> None:
    """Its rectangles have four corners."""
    labelme(to, {"label": "car", "points": CORNERS, "shape_type": "rectangle", "group_id": None})


def supervisely(to: Writer) -> None:
    to.json("meta.json", {"classes": [{"title": "car", "shape": "bitmap"}], "tags": []})
    part = saved(Image.fromarray(np.full((BOTTOM - TOP, RIGHT - LEFT), 255, np.uint8)))
    bitmap = {
        "data": base64.b64encode(zlib.compress(part)).decode(),
        "origin": [LEFT, TOP],
    }
    thing = {"classTitle": "car", "geometryType": "bitmap", "bitmap": bitmap}
    size = {"height": 40, "width": 60}
    to.json("ds0/ann/a.jpg.json", {"tags": [], "size": size, "objects": [thing]})
    to.picture("ds0/img/a.jpg")


def via(to: Writer) -> None:
    shape = {
        "name": "polygon",
        "all_points_x": [x for x, _ in CORNERS],
        "all_points_y": [y for _, y in CORNERS],
    }
    region = {"shape_attributes": shape, "region_attributes": {"class": "car"}}
    row = {"filename": "a.jpg", "size": 1234, "regions": [region], "file_attributes": {}}
    to.json("via_region_data.json", {"a.jpg1234": row})
    to.picture("a.jpg")


def datumaro(to: Writer) -> None:
    packed = coco_mask.encode(np.asfortranarray(CAR.astype(np.uint8)))
    rle = {"counts": packed["counts"].decode(), "size": [40, 60]}
    thing = {"id": 0, "type": "mask", "group": 1, "label_id": 1, "z_order": 0, "rle": rle}
    labels = [{"name": name, "parent": "", "attributes": []} for name in ("tree", "car")]
    image = {"path": "a.jpg", "size": [40, 60]}
    to.json(
        "annotations/default.json",
        {
            "dm_format_version": "1.0",
            "media_type": 2,
            "infos": {},
            "categories": {"label": {"labels": labels, "label_group": [], "attributes": []}},
            "items": [{"id": "a", "annotations": [thing], "attr": {}, "image": image}],
        },
    )
    to.picture("images/default/a.jpg")


def darwin(to: Writer) -> None:
    path = [{"x": x, "y": y} for x, y in CORNERS]
    slot = {"type": "image", "slot_name": "0", "width": 60, "height": 40}
    to.json(
        "releases/latest/annotations/a.json",
        {
            "version": "2.0",
            "schema_ref": "https://darwin-public.s3.amazonaws.com/darwin_json/2.0/schema.json",
            "item": {"name": "a.jpg", "path": "/", "slots": [slot]},
            "annotations": [{"name": "car", "polygon": {"paths": [path]}}],
        },
    )
    to.picture("images/a.jpg")


def cvat_xml(to: Writer) -> None:
    """ "CVAT for images 1.1", a mask."""
    box = f'left="{LEFT}" top="{TOP - 1}" width="{RIGHT - LEFT}" height="{BOTTOM - TOP + 1}"'
    runs = f"{RIGHT - LEFT}, {(RIGHT - LEFT) * (BOTTOM - TOP)}"  # a row outside comes first
    to.text(
        "annotations.xml",
        '<annotations><version>1.1</version><image id="0" name="a.jpg" width="60" height="40">'
        f'<mask label="car" occluded="0" rle="{runs}" {box} z_order="0"/></image></annotations>',
    )
    to.picture("images/a.jpg")


#: Layout as it is named, builder, name of its car, file of its picture.
READ: list[tuple[str, Callable[[Writer], None], str, str]] = [
    ("PASCAL VOC", voc_devkit, "car", "VOCdevkit/VOC2012/JPEGImages/2007_000032.jpg"),
    ("PASCAL VOC", cvat_mask, "car", "JPEGImages/a.jpg"),
    ("labelme2voc", labelme2voc, "car", "JPEGImages/a.jpg"),
    ("Cityscapes", cityscapes, "car", "leftImg8bit/train/ulm/ulm_000000_000019_leftImg8bit.png"),
    (
        "Cityscapes, classes of training",
        cityscapes_train_ids,
        "car",
        "leftImg8bit/train/ulm/ulm_000000_000019_leftImg8bit.png",
    ),
    ("KITTI, semantic segmentation", kitti, "car", "training/image_2/000000_10.png"),
    ("KITTI, semantic segmentation", kitti_of_datumaro, "car", "default/image_2/a.png"),
    ("BDD100K", bdd100k, "car", "images/10k/train/0004a4c0.jpg"),
    ("Mapillary Vistas", mapillary, "Car", "training/images/abc.jpg"),
    ("Mapillary Vistas 2.0", mapillary_2, "Car", "training/images/abc.jpg"),
    ("CamVid", camvid, "Car", "701_StillsRaw_full/0001TP_006690.png"),
    ("CamVid of SegNet", camvid_of_segnet, "Car", "train/0001TP_006690.png"),
    ("CamVid of Kaggle", camvid_of_kaggle, "Car", "train/0001TP_006690.png"),
    ("DeepGlobe, land cover", deepglobe, "car", "train/119_sat.jpg"),
    ("ADE20K, scene parsing", ade20k, "car", "images/training/ADE_train_00000001.jpg"),
    ("COCO-Stuff", coco_stuff, "car", "images/train2017/000000000009.jpg"),
    ("Roboflow, semantic masks", roboflow_png, "car", "train/a_jpg.rf.0123abcd.jpg"),
    ("LoveDA", loveda, "road", "Train/Rural/images_png/0.png"),
    ("Oxford-IIIT Pet", oxford_pet, "pet", "images/Abyssinian_1.jpg"),
    ("label maps", own, "car", "images/a.jpg"),
    ("a mask for each class and picture", folders_of_classes, "car", "pictures/a.jpg"),
    ("COCO", coco, "car", "val2017/a.jpg"),
    ("COCO", coco_2017, "car", "val2017/a.jpg"),
    ("COCO", lvis, "car", "val2017/a.jpg"),
    ("COCO", roboflow_coco, "car", "train/a_jpg.rf.0123abcd.jpg"),
    ("COCO", segment_anything, "object", "sa_1.jpg"),
    ("COCO, panoptic", coco_panoptic, "car", "val2017/a.jpg"),
    ("YOLO, segmentation", yolo, "car", "images/train/a.jpg"),
    ("YOLO, segmentation", roboflow_yolo, "car", "train/images/a.jpg"),
    ("LabelMe", labelme, "car", "a.jpg"),
    ("LabelMe", x_anylabeling, "car", "a.jpg"),
    ("Supervisely", supervisely, "car", "ds0/img/a.jpg"),
    ("VGG Image Annotator (VIA)", via, "car", "a.jpg"),
    ("Datumaro", datumaro, "car", "images/default/a.jpg"),
    ("V7 Darwin", darwin, "car", "images/a.jpg"),
    ("CVAT's XML", cvat_xml, "car", "images/a.jpg"),
]

EACH = pytest.mark.parametrize(
    ("layout", "build", "car", "picture"), READ, ids=[build.__name__ for _, build, _, _ in READ]
)


# ---- what is told in a sentence ------------------------------------------------------------------

_REGION = {"from_name": "tag", "to_name": "img", "type": "brushlabels", "value": {}}
_TASK = {
    "id": 1,
    "annotations": [{"id": 2, "completed_by": 1, "result": [_REGION]}],
    "data": {"image": "/data/upload/1/a.jpg"},
}
_ENCORD = {"label_hash": "x", "data_title": "a.jpg", "data_units": {"y": {"labels": {}}}}
_SEGMENTS = {
    "name": "v1",
    "dataset": {"task_attributes": {"categories": []}, "samples": []},
}
_LABELBOX = {"data_row": {"id": "x", "external_id": "a.jpg"}, "projects": {}}
_SUPER = {"metadata": {"name": "a.jpg"}, "instances": [{"classId": 1, "type": "polygon"}]}

#: What is written, and the beginning of the sentence.
TOLD: list[tuple[dict[str, Any], str]] = [
    ({"project.json": [_TASK]}, "Label Studio's JSON export: clearclip-backend dataset --export"),
    (
        {"min.json": [{"image": "a.jpg", "tag": [], "annotation_id": 2, "lead_time": 3}]},
        "Label Studio's JSON-MIN export: it lacks the regions",
    ),
    (
        {"task-1-annotation-2-by-1-tag-Sky-0.png": ""},
        "Label Studio's brush masks: their names do not say the pictures",
    ),
    (
        {"task-1-annotation-2-by-1-tag-Sky-0.npy": ""},
        "Label Studio's brush masks: their names do not say the pictures",
    ),
    ({"set-v1.json": _SEGMENTS}, r"a release of Segments\.ai: its masks are on the web"),
    ({"labels.json": [_ENCORD]}, "Encord's JSON: export it from there as COCO"),
    ({"export.ndjson": _LABELBOX}, "Labelbox's export: its masks are on the web"),
    ({"a.jpg.json": _SUPER}, "SuperAnnotate's JSON: convert it to COCO"),
    ({"a.xml": "<annotation><object><polygon><pt>"}, "LabelMe's XML: convert it to COCO"),
    (
        {"Annotations/a.xml": "<annotation><object><bndbox>", "JPEGImages/a.jpg": ""},
        "boxes of PASCAL VOC: they are no masks",
    ),
    ({"images/ADE_train_00000001_seg.png": ""}, "ADE20K as a whole: its colours are numbers"),
    (
        {"train-annotations-object-segmentation.csv": "", "masks/0a1b_m01_9c.png": ""},
        "Open Images: its masks are one file an object",
    ),
    ({"annotations/COCO_train2014_000000000077.mat": ""}, "a folder of MATLAB's files: write"),
    ({"masks/a.npy": "", "images/a.jpg": ""}, "a folder of NumPy's files: write them as grey"),
    ({"data/train-00000.parquet": ""}, "a table of Hugging Face's datasets: write its masks"),
    ({"images/a.jpg": "", "masks/a.jpg": ""}, "masks in JPEG files: JPEG changes their values"),
    ({"0001TP_L.png": "", "0002TP_L.png": ""}, r"CamVid: put its label_colors\.txt there"),
]
