"""PetFinder, Inside Airbnb and Avito: codes become words, and no modality contains the target."""

import dataclasses
import random

import pytest

from project.config.schema import AirbnbConfig, AvitoConfig, PetfinderConfig, SplitConfig
from project.data.dataset_card import dataset_card
from project.data.images import ZippedImage, pixels
from project.data.near_duplicates import near_copies
from project.data.rows import read_records, select_rows
from project.errors import UserError
from tests import made

SOURCES = {
    "petfinder": (PetfinderConfig, made.made_petfinder),
    "airbnb": (AirbnbConfig, made.made_airbnb),
    "avito": (AvitoConfig, made.made_avito),
}


def read(kind, folder, **values):
    config = SOURCES[kind][0](name=kind, path=str(folder), **values)
    return {record.id: record for record in read_records(config)}


@pytest.mark.parametrize("kind", SOURCES)
def test_rows_are_reproducible_and_split_by_group(kind, tmp_path):
    data, fill = SOURCES[kind]
    fill(tmp_path)
    assert read(kind, tmp_path) == read(kind, tmp_path)
    rows = select_rows(data(name=kind, path=str(tmp_path)))
    groups = [{record.group for record in split} for split in (rows.train, rows.val, rows.test)]
    assert all(groups) and sum(map(len, groups)) == len(set.union(*groups))
    assert rows.target.kind == {"petfinder": "ordinal"}.get(kind, "number")


@pytest.mark.parametrize("kind", SOURCES)
def test_the_error_of_a_missing_folder_names_the_source(kind, tmp_path):
    with pytest.raises(UserError, match="https://.*(download|kaggle)"):
        read(kind, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("kind", "sentinel"),
    [
        ("petfinder", {"AdoptionSpeed": "4", "Age": "1", "Fee": "0", "Quantity": "1", "PhotoAmt": "1"}),
        ("avito", {"deal_probability": "0.98765"}),
    ],
)
def test_no_modality_contains_the_target(kind, sentinel, tmp_path):
    SOURCES[kind][1](tmp_path, **sentinel)
    value = next(iter(sentinel.values()))
    for record in read(kind, tmp_path).values():
        assert value in (record.target, f"{record.target:.5f}" if kind == "avito" else record.target)
        content = str(dataclasses.replace(record, target=None, id="", group="", image=None))
        assert value not in content


def test_no_modality_contains_the_price_of_a_listing(tmp_path):
    made.made_airbnb(tmp_path)
    for record in read("airbnb", tmp_path).values():
        content = f"{record.text} {record.table}"
        assert (
            not {f"{record.target:.0f}", f"{record.target:,.0f}", "85", "20 euros", "700", "777", "33"}
            & set(content.replace("$", " ").replace(".", " ").split())
            and "$" not in content
        )


def test_codes_of_a_pet_become_words(tmp_path):
    made.made_petfinder(tmp_path, MaturitySize="0", Age="26", Vaccinated="3", State="99999", Fee="50")
    table = read("petfinder", tmp_path)["pet1"].table
    assert table["type"] == "cat" and table["breed"] == "Mixed Breed" and table["second breed"] is None
    assert table["age"] == "2 years and 2 months" and table["vaccinated"] == "not sure"
    assert table["size at maturity"] is None and table["state"] is None
    assert table["adoption fee"] == "50 ringgit" and table["number of photos"] == "3"
    assert not set(map(str, range(5))) & {str(name) for name in table}


@pytest.mark.parametrize(("photos", "kinds"), [("first", "Path"), ("all", "tuple"), ("none", "NoneType")])
def test_a_pet_has_its_photos_or_the_description_in_their_metadata(tmp_path, photos, kinds):
    made.made_petfinder(tmp_path)
    rows = read("petfinder", tmp_path, photos=photos)
    assert kinds in type(rows["pet4"].image).__name__
    assert rows["pet2"].image == (None if photos == "none" else "It shows whiskers.")
    assert rows["pet1"].image is None
    assert read("petfinder", tmp_path, photos=photos, metadata=False)["pet2"].image is None


def test_label_files_may_be_in_a_subfolder(tmp_path):
    made.made_petfinder(tmp_path)
    (tmp_path / "breed_labels.csv").rename(tmp_path / "train" / "breed_labels.csv")
    assert read("petfinder", tmp_path)["pet0"].table["breed"] == "Mixed Breed"


def test_the_tutorial_copy_is_refused_and_the_other_copy_is_read(tmp_path):
    rows = [made.pet(index, AdoptionSpeed=str(index % 2)) for index in range(6)]
    made.made_petfinder(tmp_path)
    made.write_csv(tmp_path / "train" / "train.csv", made.PETFINDER, rows)
    with pytest.raises(UserError, match="tutorial copy"):
        read("petfinder", tmp_path)
    (tmp_path / "train" / "images").mkdir()
    (tmp_path / "train" / "images" / "a.jpg").write_bytes(made.picture(0))
    cell = "images/a.jpg;images/none.jpg;../../../etc/passwd"
    rows = [made.pet(index) | {"Images": cell if index == 1 else ""} for index in range(6)]
    made.write_csv(tmp_path / "train" / "train.csv", [*made.PETFINDER, "Images"], rows)
    records = read("petfinder", tmp_path, photos="all")
    assert records["pet1"].image == tmp_path / "train" / "images" / "a.jpg"


def test_all_problems_of_the_pets_are_listed_together(tmp_path):
    made.made_petfinder(tmp_path, rows=2, Age="old", Gender="9", AdoptionSpeed="7")
    with pytest.raises(UserError) as error:
        read("petfinder", tmp_path)
    lines = str(error.value).splitlines()
    assert len(lines) == 6 and all("row" in line and "column" in line for line in lines)


def test_both_generations_of_listings_are_read(tmp_path):
    made.made_airbnb(tmp_path)
    rows = read("airbnb", tmp_path)
    old, new = rows["bergen/listings.csv:1000"], rows["albany/listings.csv:1060"]
    assert old.table["list of amenities"] == "TV, Cable TV, Wifi"
    assert new.table["list of amenities"] == "Wifi, TV – cable"
    assert old.table["number of bathrooms"] == "1" and new.table["bathroom"] == "1 shared bath"
    assert new.table["number of bathrooms"] is None and new.table["superhost status"] in ("yes", "no")
    assert {row.table["response rate of the host"] for row in rows.values()} == {"95 percent", None}
    assert "Bright room.\nOnly a night & for cleaning, 5 minutes from the tram." in new.text
    assert all(row.target > 1000 for row in rows.values()) and len(rows) == 54


@pytest.mark.parametrize("city", ["albany", "bergen"])
def test_a_test_city_gives_the_test_rows_and_shares_no_host(tmp_path, city):
    made.made_airbnb(tmp_path, rows=160)
    shared = {
        column: made.listing(900, host_id="h1" if city == "albany" else "h81")[column] for column in made.AIRBNB_NEW
    }
    made.write_csv(tmp_path / "cadiz" / "listings.csv", made.AIRBNB_NEW, [shared])
    made.write_csv(tmp_path / city / "later" / "listings.csv", made.AIRBNB_NEW, [shared])
    rows = select_rows(AirbnbConfig(name="airbnb", path=str(tmp_path), test_city=city))
    assert {record.id.split("/")[0] for record in rows.test} == {city} and len(rows.test) == 73
    assert (
        {record.id.split("/")[0] for record in rows.train}
        == {record.id.split("/")[0] for record in rows.val}
        == {"albany" if city == "bergen" else "bergen"}
    )
    all_records = read_records(AirbnbConfig(name="airbnb", path=str(tmp_path)))
    test_hosts = {record.group for record in rows.test}
    others = {record.id for record in all_records if record.id.split("/")[0] != city and record.group not in test_hosts}
    assert {record.id for record in rows.train + rows.val} == others and "cadiz/listings.csv:1900" not in others
    assert 0.03 < len(rows.val) / len(others) < 0.3
    groups = [{record.group for record in split} for split in (rows.train, rows.val, rows.test)]
    assert sum(map(len, groups)) == len(set.union(*groups))


def test_caps_and_the_split_seed_apply_with_a_test_city(tmp_path):
    made.made_airbnb(tmp_path)
    default, reseeded, capped = (
        select_rows(AirbnbConfig(name="airbnb", path=str(tmp_path), test_city="albany", split=split))
        for split in (SplitConfig(), SplitConfig(seed=1), SplitConfig(max_train=5, max_val=2, max_test=3))
    )
    assert {record.id for record in default.test} == {record.id for record in reseeded.test}
    assert {record.id for record in default.val} != {record.id for record in reseeded.val}
    assert (capped.train, capped.val, capped.test) == (default.train[:5], default.val[:2], default.test[:3])


def test_the_card_names_the_test_city(tmp_path):
    made.made_airbnb(tmp_path)
    config = AirbnbConfig(name="airbnb", question="?", path=str(tmp_path), test_city="albany")
    rows = select_rows(config)
    card = dataset_card(rows, config, near_copies(rows))
    assert "val 0.15 of the groups, train the rest; test is the listings of albany; no group is in two splits" in card


def test_the_error_of_an_unknown_city_lists_the_cities(tmp_path):
    made.made_airbnb(tmp_path)
    with pytest.raises(UserError, match="test_city=albani: .* has albany, bergen; did you mean albany?"):
        read("airbnb", tmp_path, test_city="albani")
    with pytest.raises(UserError, match="one of several cities, and .* has listings"):
        read("airbnb", tmp_path / "bergen", test_city="listings")


def test_each_file_of_a_single_folder_is_a_city(tmp_path):
    made.made_airbnb(tmp_path)
    for city, name in (("bergen", "listings.csv"), ("albany", "listings.csv.gz")):
        (tmp_path / city / name).rename(tmp_path / f"{city}-{name}")
    rows = select_rows(AirbnbConfig(name="airbnb", path=str(tmp_path), test_city="albany-listings"))
    assert {record.id.split(":")[0] for record in rows.test} == {"albany-listings.csv"}
    assert {record.id.split(":")[0] for record in rows.train} == {"bergen-listings.csv"}


@pytest.mark.parametrize("price", ["free", "1.2.3"])
def test_an_invalid_price_is_an_error_with_row_and_column(tmp_path, price):
    rows = [{column: made.listing(0, price=price)[column] for column in made.AIRBNB_NEW}]
    made.write_csv(tmp_path / "listings.csv", made.AIRBNB_NEW, rows)
    with pytest.raises(UserError, match="row 1, column 'price'"):
        read("airbnb", tmp_path)


def test_listings_have_pictures_by_their_id(tmp_path):
    made.made_airbnb(tmp_path / "rows")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "1060.jpg").write_bytes(made.picture(0))
    rows = read("airbnb", tmp_path / "rows", images=str(tmp_path / "pictures"))
    assert rows["albany/listings.csv:1060"].image == tmp_path / "pictures" / "1060.jpg"
    assert rows["albany/listings.csv:1061"].image is None
    with pytest.raises(UserError, match="data.images=.* does not exist"):
        read("airbnb", tmp_path / "rows", images=str(tmp_path / "none"))


def test_adverts_have_russian_words_and_pictures_of_the_zip(tmp_path):
    made.made_avito(tmp_path)
    rows = read("avito", tmp_path)
    assert isinstance(rows["i6"].image, ZippedImage) and pixels(rows["i6"].image).shape == (8, 8, 3)
    assert rows["i3"].image is None and read("avito", tmp_path, images=False)["i6"].image is None
    assert rows["i0"].table["region"] == "Татарстан" and {row.table["price"] for row in rows.values()} == {"400", None}
    assert all(0 <= row.target <= 1 and row.table["param 1"] is None for row in rows.values())


def test_the_chunk_size_does_not_change_the_adverts(tmp_path, monkeypatch):
    made.made_avito(tmp_path)
    records = read("avito", tmp_path)
    monkeypatch.setattr("project.data.sources.avito.CHUNK", 7)
    assert read("avito", tmp_path) == records


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda rows: rows[3].update(deal_probability="2"), "row 4, column 'deal_probability'"),
        (lambda rows: rows[3].update(user_id=""), "row 4, column 'user_id'"),
        (lambda rows: [row.pop("city") for row in rows], "no column 'city'"),
    ],
)
def test_problems_of_an_advert_are_named(tmp_path, damage, message):
    rows = [made.advert(index) for index in range(6)]
    damage(rows)
    made.write_csv(tmp_path / "train.csv", list(rows[0]), rows)
    with pytest.raises(UserError, match=message):
        read("avito", tmp_path)


def test_a_truncated_archive_is_a_user_error(tmp_path):
    made.made_avito(tmp_path)
    content = (tmp_path / "train_jpg.zip").read_bytes()
    (tmp_path / "train_jpg.zip").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="incomplete or damaged zip"):
        read("avito", tmp_path)


@pytest.mark.parametrize("kind", SOURCES)
def test_random_bytes_are_a_user_error(kind, tmp_path):
    SOURCES[kind][1](tmp_path)
    for path in tmp_path.rglob("*.csv*"):
        path.write_bytes(random.Random(0).randbytes(300))
    with pytest.raises(UserError):
        read(kind, tmp_path)
