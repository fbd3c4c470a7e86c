"""The bundled client in a real browser, which talks to the real service.

Arguments before unittest's own: the installed service, the bundle, the folder of the page.
The service serves the page and the bundle in place of its own page's files.
"""

import html
import json
import os
import os.path
import re
import shutil
import subprocess
import sys
import unittest

BROWSER = "/usr/lib/chromium/chromium"
# The action's sandbox takes the place of the browser's own.
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    # Requests are waited for, then the page is printed.
    "--virtual-time-budget=20000",
    "--dump-dom",
]
DEADLINE_S = 120


class BrowserTest(unittest.TestCase):
    app = bundle = page = ""

    def setUp(self):
        self.scratch = os.environ["TEST_TMPDIR"]
        root = os.path.join(self.scratch, "root")
        shutil.copytree(self.app, root, copy_function=shutil.copyfile)
        os.chmod(os.path.join(root, "bin", "graph_tool"), 0o755)
        for name, source in (
            ("index.html", os.path.join(self.page, "page.html")),
            ("layout.js", os.path.join(self.page, "page.js")),
            ("app.js", self.bundle),
        ):
            target = os.path.join(root, "web", name)
            os.remove(target)
            shutil.copyfile(source, target)
        command = [sys.executable, "-B", os.path.join(root, "main.py"), "--port", "0"]
        service = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={})
        self.addCleanup(service.stdout.close)
        self.addCleanup(service.wait)
        self.addCleanup(service.kill)
        # Blocks until the service has bound its port, or has ended.
        line = service.stdout.readline()
        self.assertTrue(line.startswith("listening on http://127.0.0.1:"), line)
        self.address = line.removeprefix("listening on ").strip()

    def test_the_page_gets_answers(self):
        profile = os.path.join(self.scratch, "profile")
        browser = subprocess.run(
            [BROWSER, *FLAGS, f"--user-data-dir={profile}", self.address],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            env={"HOME": self.scratch},
        )
        self.assertEqual(browser.returncode, 0, browser.stderr)
        found = re.search(r'<pre id="report">(.*?)</pre>', browser.stdout, re.DOTALL)
        self.assertIsNotNone(found, browser.stdout + browser.stderr)
        text = html.unescape(found.group(1))
        self.assertTrue(text.startswith("{"), text + browser.stderr)
        report = json.loads(text)
        self.assertEqual(report.get("names"), ["Åse Ångholm"], report)
        self.assertGreater(report["drawn"], 0)
        self.assertEqual(report["nodes"], report["drawn"])
        self.assertEqual(report["placed"], report["drawn"])
        self.assertEqual(report["error"], "unknown_entity")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit("usage: browser_test.py SERVICE BUNDLE PAGE")
    BrowserTest.app, BrowserTest.bundle, page = (sys.argv.pop(1) for _ in range(3))
    BrowserTest.page = os.path.dirname(page)
    unittest.main()
