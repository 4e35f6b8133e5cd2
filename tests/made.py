"""Write small synthetic data sets in the schemas of the three published ones, including their irregularities."""

import csv
import gzip
import json
import random
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

PETFINDER = (
    "Type,Name,Age,Breed1,Breed2,Gender,Color1,Color2,Color3,MaturitySize,FurLength,Vaccinated,Dewormed,"
    "Sterilized,Health,Quantity,Fee,State,RescuerID,VideoAmt,Description,PetID,PhotoAmt,AdoptionSpeed"
).split(",")
AVITO = (
    "item_id,user_id,region,city,parent_category_name,category_name,param_1,param_2,param_3,title,description,"
    "price,item_seq_number,activation_date,user_type,image,image_top_1,deal_probability"
).split(",")
AIRBNB_OLD = (
    "id,name,summary,description,neighborhood_overview,host_id,host_about,host_is_superhost,"
    "host_response_rate,property_type,room_type,accommodates,bathrooms,bedrooms,beds,amenities,square_feet,price,"
    "weekly_price,security_deposit,cleaning_fee,minimum_nights,review_scores_rating"
).split(",")
AIRBNB_NEW = (
    "id,name,description,neighborhood_overview,picture_url,host_id,host_about,host_is_superhost,"
    "host_response_rate,property_type,room_type,accommodates,bathrooms,bathrooms_text,bedrooms,beds,amenities,"
    "price,minimum_nights,review_scores_rating"
).split(",")


def picture(seed: int) -> bytes:
    """Return a small JPEG."""
    file = BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)).save(file, "JPEG")
    return file.getvalue()


def write_csv(path: Path, columns: list[str], rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def pet(index: int, **changes) -> dict:
    """Return one row as published: with codes, 0 for unspecified, and a photo count of 3.0."""
    draw = random.Random(index)
    return {
        "Type": str(1 + index % 2),
        "Name": draw.choice(["Momo", "", "No Name Yet"]),
        "Age": str(draw.randint(0, 30)),
        "Breed1": "307",
        "Breed2": "0",
        "Gender": str(draw.randint(1, 3)),
        "Color1": "1",
        "Color2": "0",
        "Color3": "0",
        "MaturitySize": str(draw.randint(0, 4)),
        "FurLength": "1",
        "Vaccinated": str(draw.randint(1, 3)),
        "Dewormed": "2",
        "Sterilized": "3",
        "Health": "1",
        "Quantity": "1",
        "Fee": draw.choice(["0", "50"]),
        "State": "41326",
        "RescuerID": f"rescuer{index // 2}",
        "VideoAmt": "0",
        "Description": draw.choice(['A calm one.\nLikes "tuna", 很可爱.', "", "Found near my home, needs a garden."]),
        "PetID": f"pet{index}",
        "PhotoAmt": "3.0",
        "AdoptionSpeed": str(index % 5),
    } | changes


def made_petfinder(folder: Path, rows: int = 60, **changes) -> Path:
    """Write PetFinder's files, with two photos of every fourth pet and metadata of every second pet."""
    write_csv(folder / "train" / "train.csv", PETFINDER, [pet(index, **changes) for index in range(rows)])
    write_csv(
        folder / "breed_labels.csv",
        ["BreedID", "Type", "BreedName"],
        [{"BreedID": "307", "Type": "1", "BreedName": "Mixed Breed"}],
    )
    write_csv(folder / "color_labels.csv", ["ColorID", "ColorName"], [{"ColorID": "1", "ColorName": "Black"}])
    write_csv(folder / "state_labels.csv", ["StateID", "StateName"], [{"StateID": "41326", "StateName": "Selangor"}])
    (folder / "train_images").mkdir()
    (folder / "train_metadata").mkdir()
    for index in range(0, rows, 2):
        label = {"labelAnnotations": [{"description": "whiskers", "score": 0.9}, {"description": "sofa", "score": 0.2}]}
        (folder / "train_metadata" / f"pet{index}-1.json").write_text(json.dumps(label))
        for number in (1, 2) if index % 4 == 0 else ():
            (folder / "train_images" / f"pet{index}-{number}.jpg").write_bytes(picture(10 * index + number))
    return folder


def listing(index: int, **changes) -> dict:
    """Return one listing with the columns of both generations."""
    draw = random.Random(index)
    return {
        "id": str(1000 + index),
        "name": f"Room {index % 7} by the river",
        "summary": "Old words.",
        "description": "Bright room.<br />Only $85 a night &amp; 20 euros for cleaning, 5 minutes from the tram.",
        "neighborhood_overview": draw.choice(["", "Quiet <b>street</b>."]),
        "host_id": f"h{index // 2}",
        "host_about": "",
        "host_is_superhost": draw.choice("tf"),
        "host_response_rate": draw.choice(["95%", "N/A", ""]),
        "property_type": "Apartment",
        "room_type": draw.choice(["Private room", "Entire home/apt"]),
        "accommodates": str(draw.randint(1, 6)),
        "bathrooms": "1.0",
        "bathrooms_text": "1 shared bath",
        "bedrooms": "1.0",
        "beds": "",
        "amenities": '["Wifi", "TV \\u2013 cable"]',
        "square_feet": "",
        "price": f"${1000 + 50 * draw.randint(1, 9):,}.00",
        "weekly_price": "$700.00",
        "security_deposit": "$777.00",
        "cleaning_fee": "$33.00",
        "minimum_nights": "2",
        "review_scores_rating": "4.80",
        "picture_url": "https://x/y.jpg",
    } | changes


def made_airbnb(folder: Path, rows: int = 60) -> Path:
    """Write the listings of two cities, one per generation of columns; every tenth listing has no price."""

    def listings(columns, start):
        all_columns = [
            listing(index, **({"price": ""} if index % 10 == 9 else {})) for index in range(start, start + rows // 2)
        ]
        return [{column: row[column] for column in columns} for row in all_columns]

    old = [row | {"amenities": '{TV,"Cable TV",Wifi}'} for row in listings(AIRBNB_OLD, 0)]
    write_csv(folder / "bergen" / "listings.csv", AIRBNB_OLD, old)
    write_csv(folder / "albany" / "listings.csv.gz", AIRBNB_NEW, listings(AIRBNB_NEW, rows))
    return folder


def advert(index: int, **changes) -> dict:
    """Return one advert."""
    draw = random.Random(index)
    return {
        "item_id": f"i{index}",
        "user_id": f"u{index // 2}",
        "region": "Татарстан",
        "city": draw.choice(["Казань", "Сарапул"]),
        "parent_category_name": "Личные вещи",
        "category_name": "Часы",
        "param_1": "",
        "param_2": "",
        "param_3": "",
        "title": draw.choice(["Часы наручные", "Стул, почти новый"]),
        "description": draw.choice(["", "Продам,\nторг"]),
        "price": draw.choice(["", "400.0"]),
        "item_seq_number": "7",
        "activation_date": "2017-03-28",
        "user_type": draw.choice(["Private", "Company"]),
        "image": f"p{index}" if index % 3 == 0 else "",
        "image_top_1": "1008.0",
        "deal_probability": f"{draw.random():.5f}",
    } | changes


def made_avito(folder: Path, rows: int = 60, **changes) -> Path:
    """Write Avito's files; every third advert names a picture, and the zip has the picture of every sixth advert."""
    write_csv(folder / "train.csv", AVITO, [advert(index, **changes) for index in range(rows)])
    with zipfile.ZipFile(folder / "train_jpg.zip", "w") as images:
        for index in range(0, rows, 6):
            images.writestr(f"data/competition_files/train_jpg/p{index}.jpg", picture(index))
    return folder
