"""Table -> text: one sentence a cell, the serialisation that the paper names."""

from ..record import Record


def describe_table(record: Record) -> str:
    """"The <column> is <value>." for each cell, in the row's own order."""
    return " ".join(f"The {name} is {value}." for name, value in record.table.items())
