"""What ingestion accepts, how it normalises it, and what it says of rows that it refuses."""

import unittest

from intelgraph.service import dataset

GOOD = {
    "person": "id,name,also_known_as,born,lives_in,source\n"
    "P001,Jonas  Vale ,J. V.; Joe;,6 May 1961,Marn,D001\n"
    'P002,"Vale, Ilse",,,,D001\n',
    "organisation": "id,name,also_known_as,founded,seat,source\nO001,Boatyard,,1950,Marn,D001\n",
    "account": "id,name,opened,bank_branch,source\nA001,Savings,01.02.2003,,D001\n"
    "A002,Current,,,D001\n",
    "document": "id,title,issued,place\nD001,Register,2019-01-02,Marn\n",
    "link": "id,from,to,kind,strength,date,source\nL001,P001,O001,works_for,080,1999,D001\n",
}


def load(**tables):
    """Loads the good tables with some of them replaced."""
    texts = {**GOOD, **tables}
    return dataset.load_dataset({
        kind: (f"{kind}.csv", text if isinstance(text, bytes) else text.encode())
        for kind, text in texts.items()
    })


class CleaningTest(unittest.TestCase):
    def test_dates(self):
        table = {
            "": "",
            "1961": "1961",
            "1961-05-06": "1961-05-06",
            " 06.05.1961 ": "1961-05-06",
            "6 May 1961": "1961-05-06",
            "29.2.2000": "2000-02-29",
        }
        for text, expected in table.items():
            with self.subTest(text):
                self.assertEqual(dataset.clean_date(text), expected)

    def test_what_is_no_date(self):
        for text in ("61", "1961-13-01", "29.02.1900", "31 April 2001", "6 Mai 1961", "1961-5-6",
                     "00.01.2001", "٠٦.٠٥.١٩٦١"):
            with self.subTest(text), self.assertRaises(ValueError):
                dataset.clean_date(text)

    def test_text(self):
        self.assertEqual(dataset.clean_text(" A\u030ase \t A\u030angholm\n"), "Åse Ångholm")


class LoadTest(unittest.TestCase):
    def test_good_tables(self):
        loaded = load()
        self.assertEqual([row[0] for row in loaded.entities],
                         ["A001", "A002", "D001", "O001", "P001", "P002"])
        self.assertEqual(
            loaded.entities[4],
            ["P001", "person", "Jonas Vale", "J. V.;Joe", "1961-05-06", "Marn", "D001"],
        )
        self.assertEqual(loaded.links,
                         [["L001", "P001", "O001", "works_for", "80", "1999", "D001"]])

    def test_written_text_is_quoted_where_needed(self):
        text = dataset.write_csv(["a", "b"], [["x", "Vale, Ilse"], ["", 'say "hi"']])
        self.assertEqual(text, 'a,b\nx,"Vale, Ilse"\n,"say ""hi"""\n')

    def check(self, kind, row, message):
        """Adds a row to a good table and expects a refusal with this message."""
        with self.subTest(row):
            addition = row if isinstance(row, bytes) else row.encode()
            with self.assertRaises(dataset.DataError) as caught:
                load(**{kind: GOOD[kind].encode() + addition})
            line = GOOD[kind].count("\n") + 1
            self.assertEqual(str(caught.exception), f"{kind}.csv:{line}: {message}")

    def test_bad_entities(self):
        self.check("person", "P002,X,,,,D001\n", "id `P002` is used twice")
        self.check("person", "X1,X,,,,D001\n", "id `X1` is not `P` and 3 to 6 digits")
        self.check("person", "O002,X,,,,D001\n", "id `O002` is not `P` and 3 to 6 digits")
        self.check("person", "P003, ,,,,D001\n", "name is empty")
        self.check("person", "P003,X,,,,\n", "no source: who says so?")
        self.check("person", "P003,X,,,,P001\n", "source `P001` is not a document")
        self.check("person", "P003,X,,soon,,D001\n", "born: `soon` is not a date")
        self.check("person", "P003,X,,,D001\n", "5 fields where the header has 6")
        self.check("person", "P003,\x1b[31m,,,,D001\n", "a control character in a field")
        self.check("person", b"P003,\xff,,,,D001\n", "text that is not UTF-8")
        self.check("person", f"P003,{'x' * 401},,,,D001\n", "a field longer than 400 characters")

    def test_bad_links(self):
        self.check("link", "L001,P001,P002,knows,5,,D001\n", "id `L001` is used twice")
        self.check("link", "L002,P001,P002,owes,5,,D001\n", "`owes` is not a kind of link")
        self.check("link", "L002,P001,P009,knows,5,,D001\n", "no entity has the id `P009`")
        self.check("link", "L002,P001,P001,knows,5,,D001\n", "a link from an entity to itself")
        self.check("link", "L002,P001,A001,knows,5,,D001\n",
                   "`knows` does not go to a `account` (`A001`)")
        self.check("link", "L002,P001,P002,knows,0,,D001\n", "strength `0` is not in 1..100")
        self.check("link", "L002,P001,P002,knows,-1,,D001\n", "strength `-1` is not in 1..100")
        self.check("link", "L002,P001,P002,knows,5,,D009\n", "source `D009` is not a document")

    def test_bad_files(self):
        for text, message in (
            ("", "link.csv:1: an empty file: the header is missing"),
            ("id,to\n", "link.csv:1: the header is not `id,from,to,kind,strength,date,source`"),
        ):
            with self.subTest(text), self.assertRaises(dataset.DataError) as caught:
                load(link=text)
            self.assertEqual(str(caught.exception), message)

    def test_an_open_quote_is_refused(self):
        with self.assertRaises(dataset.DataError):
            load(link=GOOD["link"] + 'L002,"P001,P002,knows,5,,D001\n')


if __name__ == "__main__":
    unittest.main()
