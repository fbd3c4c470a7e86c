"""The ingestion program: files in, files out, exit codes."""

import contextlib
import io
import os
import tempfile
import unittest

from intelgraph.service import ingest

TABLES = {
    "people": "id,name,also_known_as,born,lives_in,source\nP001,Jonas Vale,,1961,Marn,D001\n",
    "organisations": "id,name,also_known_as,founded,seat,source\nO001,Boatyard,,,,D001\n",
    "accounts": "id,name,opened,bank_branch,source\n",
    "documents": "id,title,issued,place\nD001,Register,,\n",
    "links": "id,from,to,kind,strength,date,source\nL001,P001,O001,board_of,7,,D001\n",
}


class IngestTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(dir=os.environ.get("TEST_TMPDIR"))
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def run_ingest(self, **tables):
        """Runs the program over the tables; returns exit code, messages and the two outputs."""
        arguments = []
        for name, text in {**TABLES, **tables}.items():
            path = os.path.join(self.folder, f"{name}.csv")
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            arguments += [f"--{name}", path]
        outputs = [os.path.join(self.folder, name) for name in ("entities.out", "links.out")]
        arguments += ["--out-entities", outputs[0], "--out-links", outputs[1]]
        messages = io.StringIO()
        with contextlib.redirect_stderr(messages):
            code = ingest.main(arguments)
        return code, messages.getvalue(), [self.read(path) for path in outputs]

    @staticmethod
    def read(path):
        if not os.path.exists(path):
            return None
        with open(path, encoding="utf-8") as file:
            return file.read()

    def test_writes_both_tables(self):
        code, messages, outputs = self.run_ingest()
        self.assertEqual((code, messages), (0, ""))
        self.assertEqual(outputs, [
            "id,type,name,aliases,date,place,source\n"
            "D001,document,Register,,,,\n"
            "O001,organisation,Boatyard,,,,D001\n"
            "P001,person,Jonas Vale,,1961,Marn,D001\n",
            "id,from,to,kind,strength,date,source\n"
            "L001,P001,O001,board_of,7,,D001\n",
        ])

    def test_a_bad_row_leaves_no_output(self):
        code, messages, outputs = self.run_ingest(
            links=TABLES["links"] + "L002,P001,P404,knows,7,,D001\n")
        self.assertEqual(code, 1)
        self.assertEqual(messages, "ingest: links.csv:3: no entity has the id `P404`\n")
        self.assertEqual(outputs, [None, None])


if __name__ == "__main__":
    unittest.main()
