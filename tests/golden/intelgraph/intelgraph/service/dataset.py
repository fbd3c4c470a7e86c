"""Turns the raw tables of the data set into checked, normalised rows.

It reads what people typed (dates in three notations, stray spaces, decomposed accents) and gives
what the graph kernel reads. It decides nothing about duplicates: that is the kernel's work.

Invariants of what it returns: ids are unique; every source is a document; both ends of a link
exist, differ and are of types that its kind admits; rows are sorted by id; text is NFC.
"""

import csv
import io
import re
import unicodedata
from dataclasses import dataclass, field

ROWS_MAX = 100_000
TEXT_CHARS_MAX = 400
STRENGTH_MAX = 100

ENTITY_COLUMNS = ["id", "type", "name", "aliases", "date", "place", "source"]
LINK_COLUMNS = ["id", "from", "to", "kind", "strength", "date", "source"]

# The columns of each raw table of entities, in the order (name, aliases, date, place, source)
# after the id; None where the table has no such column.
RAW_TABLES = {
    "person": ("name", "also_known_as", "born", "lives_in", "source"),
    "organisation": ("name", "also_known_as", "founded", "seat", "source"),
    "account": ("name", None, "opened", "bank_branch", "source"),
    "document": ("title", None, "issued", "place", None),
}

_PARTY = {"person", "organisation"}
_ANY = set(RAW_TABLES)

# Which types of entity a kind of link may join: (from, to).
LINK_KINDS = {
    "board_of": ({"person"}, {"organisation"}),
    "holds": (_PARTY, {"account"}),
    "knows": ({"person"}, {"person"}),
    "member_of": (_PARTY, {"organisation"}),
    "mentions": ({"document"}, _ANY),
    "paid": ({"account"}, {"account"}),
    "relative_of": ({"person"}, {"person"}),
    "supplies": ({"organisation"}, {"organisation"}),
    "works_for": ({"person"}, {"organisation"}),
}

_ID_PREFIXES = {"person": "P", "organisation": "O", "account": "A", "document": "D"}
_ID = re.compile(r"[A-Z][0-9]{3,6}")
_MONTHS = {
    name: number
    for number, name in enumerate(
        "january february march april may june july august september october november "
        "december".split(),
        start=1,
    )
}
_DAYS = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]


class DataError(Exception):
    """A row that cannot be used. `str()` reads `FILE:LINE: MESSAGE`."""

    def __init__(self, source, line, message):
        super().__init__(f"{source}:{line}: {message}")
        self.source = source
        self.line = line


@dataclass
class Dataset:
    """Normalised rows, in the column order of ENTITY_COLUMNS and LINK_COLUMNS."""

    entities: list = field(default_factory=list)
    links: list = field(default_factory=list)


def clean_text(text):
    """Composes accents, turns runs of white space into one space, and trims."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def clean_date(text):
    """Brings `2001-05-06`, `06.05.2001`, `6 May 2001` or `2001` to ISO form; "" stays "".

    Raises ValueError for anything else, and for days that no calendar has.
    """
    text = clean_text(text)
    if text == "":
        return ""
    if match := re.fullmatch(r"([0-9]{4})-([0-9]{2})-([0-9]{2})", text, re.ASCII):
        year, month, day = map(int, match.groups())
    elif match := re.fullmatch(r"([0-9]{1,2})\.([0-9]{1,2})\.([0-9]{4})", text, re.ASCII):
        day, month, year = map(int, match.groups())
    elif match := re.fullmatch(r"([0-9]{1,2}) ([A-Za-z]+) ([0-9]{4})", text, re.ASCII):
        day, year = int(match[1]), int(match[3])
        month = _MONTHS.get(match[2].lower(), 0)
    elif re.fullmatch(r"[0-9]{4}", text, re.ASCII):
        return text
    else:
        raise ValueError(f"`{text}` is not a date")
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if not 1 <= month <= 12 or not 1 <= day <= _DAYS[month - 1]:
        raise ValueError(f"`{text}` is not a day of the calendar")
    if (month, day) == (2, 29) and not leap:
        raise ValueError(f"`{text}` is not a day of the calendar")
    return f"{year:04}-{month:02}-{day:02}"


def load_dataset(tables):
    """Reads the raw tables: a mapping from `person`, `organisation`, `account`, `document` and
    `link` to (file name, bytes). Raises DataError at the first row that cannot be used."""
    dataset = Dataset()
    types = {}
    for entity_type in RAW_TABLES:
        for line, row in _entities(entity_type, *tables[entity_type]):
            if row[0] in types:
                raise DataError(tables[entity_type][0], line, f"id `{row[0]}` is used twice")
            types[row[0]] = entity_type
            dataset.entities.append((tables[entity_type][0], line, row))
    for source, line, row in dataset.entities:
        if row[-1]:
            _check_source(source, line, types, row[-1])
    dataset.entities = sorted(row for _, _, row in dataset.entities)
    dataset.links = sorted(_links(types, *tables["link"]))
    return dataset


def write_csv(columns, rows):
    """The text of a table with LF line ends, quoted only where needed."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return out.getvalue()


def _rows(source, data, columns):
    """Yields (line, {column: cleaned text}) of a raw table."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(source, line, "text that is not UTF-8") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        for number, fields in enumerate(reader):
            if number == 0:
                if fields != columns:
                    raise DataError(source, 1, f"the header is not `{','.join(columns)}`")
            elif number > ROWS_MAX:
                raise DataError(source, line, f"more than {ROWS_MAX} rows")
            elif len(fields) != len(columns):
                message = f"{len(fields)} fields where the header has {len(columns)}"
                raise DataError(source, line, message)
            else:
                yield line, dict(zip(columns, (_field(source, line, text) for text in fields)))
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(source, reader.line_num, str(error)) from error
    if reader.line_num == 0:
        raise DataError(source, 1, "an empty file: the header is missing")


def _field(source, line, text):
    text = clean_text(text)
    if len(text) > TEXT_CHARS_MAX:
        raise DataError(source, line, f"a field longer than {TEXT_CHARS_MAX} characters")
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise DataError(source, line, "a control character in a field")
    return text


def _entities(entity_type, source, data):
    columns = RAW_TABLES[entity_type]
    name, aliases, date, place, origin = columns
    for line, raw in _rows(source, data, ["id", *(column for column in columns if column)]):
        prefix = _ID_PREFIXES[entity_type]
        if not _ID.fullmatch(raw["id"]) or raw["id"][0] != prefix:
            raise DataError(source, line, f"id `{raw['id']}` is not `{prefix}` and 3 to 6 digits")
        if not raw[name]:
            raise DataError(source, line, f"{name} is empty")
        if origin and not raw[origin]:
            raise DataError(source, line, "no source: who says so?")
        names = [part.strip() for part in raw[aliases].split(";")] if aliases else []
        yield line, [
            raw["id"],
            entity_type,
            raw[name],
            ";".join(sorted({part for part in names if part})),
            _date(source, line, date, raw[date]),
            raw[place],
            raw[origin] if origin else "",
        ]


def _links(types, source, data):
    seen = set()
    for line, raw in _rows(source, data, LINK_COLUMNS):
        if not _ID.fullmatch(raw["id"]) or raw["id"][0] != "L":
            raise DataError(source, line, f"id `{raw['id']}` is not `L` and 3 to 6 digits")
        if raw["id"] in seen:
            raise DataError(source, line, f"id `{raw['id']}` is used twice")
        seen.add(raw["id"])
        _check_ends(source, line, types, raw)
        _check_source(source, line, types, raw["source"])
        if not re.fullmatch(r"[0-9]{1,3}", raw["strength"], re.ASCII) or not (
            1 <= int(raw["strength"]) <= STRENGTH_MAX
        ):
            message = f"strength `{raw['strength']}` is not in 1..{STRENGTH_MAX}"
            raise DataError(source, line, message)
        yield [
            raw["id"],
            raw["from"],
            raw["to"],
            raw["kind"],
            str(int(raw["strength"])),
            _date(source, line, "date", raw["date"]),
            raw["source"],
        ]


def _check_ends(source, line, types, raw):
    kinds = LINK_KINDS.get(raw["kind"])
    if kinds is None:
        raise DataError(source, line, f"`{raw['kind']}` is not a kind of link")
    for end, admitted in zip(("from", "to"), kinds):
        found = types.get(raw[end])
        if found is None:
            raise DataError(source, line, f"no entity has the id `{raw[end]}`")
        if found not in admitted:
            message = f"`{raw['kind']}` does not go {end} a `{found}` (`{raw[end]}`)"
            raise DataError(source, line, message)
    if raw["from"] == raw["to"]:
        raise DataError(source, line, "a link from an entity to itself")


def _check_source(source, line, types, document):
    if types.get(document) != "document":
        raise DataError(source, line, f"source `{document}` is not a document")


def _date(source, line, column, text):
    try:
        return clean_date(text)
    except ValueError as error:
        raise DataError(source, line, f"{column}: {error}") from error
