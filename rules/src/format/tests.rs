//! What the formatter makes of texts.

use super::{FileKind, format};

/// Lays `text` out as a library file, and the result once more.
fn check(text: &str, want: &str) {
    check_as(FileKind::Library, text, want);
}

fn check_as(kind: FileKind, text: &str, want: &str) {
    let got = format("x.star", text, kind).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(got, want, "of\n{text}");
    assert_eq!(format("x.star", &got, kind).expect("it parses"), got, "twice");
}

fn unchanged(text: &str) {
    check(text, text);
}

#[test]
fn spaces_and_quotes() {
    check("x=1\n", "x = 1\n");
    check("x = f( a,b = 'c' )[ 1 : -2 ] .d", "x = f(a, b = \"c\")[1:-2].d\n");
    check("x = -1 if not a else ~b%c\n", "x = -1 if not a else ~b % c\n");
    check("x = {'a':1,\"b\" : 'say \"no\"'}\n", "x = {\"a\": 1, \"b\": 'say \"no\"'}\n");
    check("x = r'\\d' + b'a' + '''b'''\n", "x = r'\\d' + b\"a\" + \"\"\"b\"\"\"\n");
    check("f = lambda x,*y,**z:x+1\n", "f = lambda x, *y, **z: x + 1\n");
    check("x = [a for a,b in c if d]\n", "x = [a for a, b in c if d]\n");
    check("x = (1,)\ny = ()\nz = (1, 2,)\n", "x = (1,)\ny = ()\nz = (1, 2)\n");
    check("f(*a,**b)\nx, y = 1,2\n", "f(*a, **b)\nx, y = 1, 2\n");
    check("x = a[1:][::2][b:c]\n", "x = a[1:][::2][b:c]\n");
    check("x = a not in b and not (c)\n", "x = a not in b and not (c)\n");
    check("x = 1.5e-3 + 0x1F\n", "x = 1.5e-3 + 0x1F\n");
}

#[test]
fn groups_keep_to_one_line_or_take_one_each() {
    check("x = [1,\n 2, 3]\n", "x = [\n    1,\n    2,\n    3,\n]\n");
    check("f(\n a = 1, **b)\n", "f(\n    a = 1,\n    **b\n)\n");
    check("f(g(\n1))\n", "f(g(\n    1,\n))\n");
    check("f([\n1,\n2])\n", "f([\n    1,\n    2,\n])\n");
    check(
        "def f(a,\n b = 1, *c):\n  pass\n",
        "def f(\n        a,\n        b = 1,\n        *c):\n    pass\n",
    );
    check("x = [a\n for a in b\n if a]\n", "x = [\n    a\n    for a in b\n    if a\n]\n");
    check("x = [a for a in b\n if a]\n", "x = [\n    a\n    for a in b\n    if a\n]\n");
    check("x = {a: b for a, b in c.items(\n)}\n", "x = {a: b for a, b in c.items()}\n");
    unchanged("x = f(a = [\n    1,\n], b = 2)\n");
    unchanged("x = [a if b else c for a in b if (d if e else f)]\n");
    check("x = [lambda a, b: a, 1,\n2]\n", "x = [\n    lambda a, b: a,\n    1,\n    2,\n]\n");
    check("x = (\n  1\n)\n", "x = (\n    1\n)\n");
}

#[test]
fn expressions_go_on_where_they_began() {
    unchanged("f(\n    doc = \"a\" +\n          \"b\",\n)\n");
    check("x = (a\n  or b\n  and c)\n", "x = (a or\n     b and\n     c)\n");
    check("if (a and\n  b):\n  pass\n", "if (a and\n    b):\n    pass\n");
    check("x = a + \\\n  b\n", "x = a + \\\n    b\n");
    check("x = \\\n  b\n", "x = b\n");
    check("x = (a\n  if b\n  else c)\n", "x = (a\n     if b\n     else c)\n");
    check("x = (a\n  .b()\n  .c())\n", "x = (a\n    .b()\n    .c())\n");
    check("x = f(\n  name =\n    1)\n", "x = f(\n    name = 1,\n)\n");
    check(
        "def f():\n  return a == (b or\n c)\n",
        "def f():\n    return a == (b or\n                 c)\n",
    );
}

#[test]
fn statements_and_blocks() {
    check("def f(): return 1\n", "def f():\n    return 1\n");
    check("if a: b; c\nelse: d # e\n", "if a:\n    b\n    c\nelse:\n    d  # e\n");
    check(
        "def f(x):\n  for y in x:\n    if y:\n      pass\n\n\n    else:\n      pass\n",
        "def f(x):\n    for y in x:\n        if y:\n            pass\n        else:\n            pass\n",
    );
    check("a = 1\n\n\n\nb = 2\nc = 3", "a = 1\n\nb = 2\nc = 3\n");
    check(
        "def f():\n\n  pass\ndef g():\n  pass\nx = 1\n",
        "def f():\n    pass\n\ndef g():\n    pass\n\nx = 1\n",
    );
    check("def f():\r\n  \"\"\"a\r\n  b\"\"\"\r\n", "def f():\n    \"\"\"a\n  b\"\"\"\n");
    check("a = 1; b = 2\n", "a = 1\nb = 2\n");
    check(
        "f = lambda: 1\nif (lambda: 1)(): pass\n",
        "f = lambda: 1\nif (lambda: 1)():\n    pass\n",
    );
    check(
        "def f(a: int, b: list[str] = []) -> None: pass\n",
        "def f(a: int, b: list[str] = []) -> None:\n    pass\n",
    );
    check("", "");
    check("\n\n", "");
    check("\u{feff}x = 1", "x = 1\n");
}

#[test]
fn comments_stay_with_what_they_speak_of() {
    check("#a\n\n# b\nx=1# c\n  # d\n", "#a\n\n# b\nx = 1  # c\n# d\n");
    check(
        "def f():\n  a\n  # b\n # c\n\n# d\ndef g():\n  # e\n  pass\n  # f\n",
        "def f():\n    a\n    # b\n\n# c\n\n# d\ndef g():\n    # e\n    pass\n    # f\n",
    );
    check(
        "x = [  # a\n 1, # b\n # c\n 2 # d\n # e\n]\n",
        "x = [\n    # a\n    1,  # b\n    # c\n    2,  # d\n    # e\n]\n",
    );
    check("x = [1\n # a\n , 2]\n", "x = [\n    1,  # a\n    2,\n]\n");
    check("x = (a + # b\n # c\n  d)\n", "x = (a +  # b\n     # c\n     d)\n");
    check("f(a, # b\n)\n", "f(\n    a,  # b\n)\n");
    check(
        "x = [a # b\n for a in c # d\n # e\n]\n",
        "x = [\n    a  # b\n    for a in c  # d\n    # e\n]\n",
    );
    check(
        "def f(\n  a, # b\n  c): # d\n  pass\n",
        "def f(\n        a,  # b\n        c):  # d\n    pass\n",
    );
    check("if a:\n  b\n# c\nelse:\n  d\n", "if a:\n    b\n# c\nelse:\n    d\n");
    unchanged("x = [\n    1,\n\n    # a\n\n    2,\n]\n");
}

#[test]
fn package_files_are_put_in_order() {
    let package = |text: &str, want: &str| check_as(FileKind::Package, text, want);
    package(
        "load(':b.star', 'z', 'y', x = 'w')\nload('@maestro//rules:a.star', \"a\")\nr(deps = ['//b', ':a', 'c'], srcs=['b','a'], name='n')\n",
        "load(\"@maestro//rules:a.star\", \"a\")\nload(\":b.star\", \"y\", \"z\", x = \"w\")\n\nr(\n    name = \"n\",\n    srcs = [\n        \"a\",\n        \"b\",\n    ],\n    deps = [\n        \"c\",\n        \":a\",\n        \"//b\",\n    ],\n)\n",
    );
    package("a(name = 'a')\nb(name = 'b')\n", "a(name = \"a\")\n\nb(name = \"b\")\n");
    package(
        "genrule(name = 'a', srcs = ['b', 'a'])\n",
        "genrule(\n    name = \"a\",\n    srcs = [\n        \"b\",\n        \"a\",\n    ],\n)\n",
    );
    package(
        "r(name = 'a', deps = ['d', # d\n 'c', # c\n\n # two\n 'b', 'a'], **k)\n",
        "r(\n    name = \"a\",\n    deps = [\n        \"c\",  # c\n        \"d\",  # d\n\n        # two\n        \"a\",\n        \"b\",\n    ],\n    **k\n)\n",
    );
    package(
        "r(name = 'a', deps = [\n # do not sort\n 'b', 'a'])\n",
        "r(\n    name = \"a\",\n    deps = [\n        # do not sort\n        \"b\",\n        \"a\",\n    ],\n)\n",
    );
    package(
        "r(deps = select({'b': [], 'a': []}))\n",
        "r(deps = select({\n    \"b\": [],\n    \"a\": [],\n}))\n",
    );
    package("exports_files(['b', 'a'])\n", "exports_files([\n    \"b\",\n    \"a\",\n])\n");
    package("x = f('a', 'b')\n", "x = f(\"a\", \"b\")\n");
}

#[test]
fn what_does_not_parse_is_refused_with_its_place() {
    for (text, place) in [("x = (\n", "2:1"), ("x = 1 +\n", "1:8"), ("\tx = 1\n", "1:1")] {
        let error = format("x.star", text, FileKind::Library).expect_err(text);
        assert_eq!(error.code, "MAE0100", "{text:?}");
        let location = error.location.expect("a place").to_string();
        assert_eq!(location, format!("x.star:{place}"), "{text:?}");
    }
    let deep = format!("x = {}\n", "(".repeat(5_000));
    assert_eq!(format("x.star", &deep, FileKind::Library).expect_err("deep").code, "MAE0103");
}

/// Every `.star` file of this repository.
fn own_files() -> Vec<std::path::PathBuf> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (mut folders, mut files) = (vec![root], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder").map(|e| e.expect("an entry")) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let hidden = name.starts_with('.') || name == "target" || name == "maestro-out";
            if entry.file_type().expect("a type").is_dir() && !hidden {
                folders.push(entry.path());
            } else if name.ends_with(".star") {
                files.push(entry.path());
            }
        }
    }
    files
}

#[test]
fn the_files_of_this_repository_are_laid_out() {
    let files = own_files();
    assert!(files.len() > 20, "found {} files", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let path = file.display().to_string();
        let text = std::fs::read_to_string(&file).expect("a text");
        let got = format(&path, &text, FileKind::of(&path)).unwrap_or_else(|e| panic!("{e}"));
        if got != text {
            wrong.push(path);
        }
    }
    assert!(wrong.is_empty(), "`maestro fmt` would change {wrong:#?}");
}

/// Writes random programs: every construct, with breaks and comments wherever they may stand.
struct Writer {
    seed: u64,
    text: String,
    /// Open brackets.
    depth: usize,
    comments: usize,
}

impl Writer {
    /// A number below `bound`, by xorshift.
    fn pick(&mut self, bound: u64) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed % bound
    }

    fn put(&mut self, text: &str) {
        self.text.push_str(text);
        let choice = self.pick(12);
        match choice {
            0 | 1 => self.text.push_str("  "),
            2 if self.depth > 0 => self.text.push('\n'),
            3 if self.depth > 0 => {
                self.comments += 1;
                self.text.push_str(&format!("# c{}\n", self.comments));
            }
            4 if self.depth > 0 => self.text.push_str("\n\n"),
            _ => self.text.push(' '),
        }
    }

    fn list(&mut self, budget: u64, element: fn(&mut Self, u64)) {
        let count = self.pick(4);
        for index in 0..count {
            element(self, budget / 2);
            if index + 1 < count || self.pick(2) == 0 {
                self.put(",");
            }
        }
    }

    fn within(&mut self, open: &str, close: &str, inner: impl FnOnce(&mut Self)) {
        self.depth += 1;
        self.put(open);
        inner(self);
        self.depth -= 1;
        self.put(close);
    }

    fn expression(&mut self, budget: u64) {
        let choice = if budget == 0 { self.pick(6) } else { self.pick(20) };
        match choice {
            0 | 1 => self.put("name"),
            2 => self.put("12"),
            3 => self.put("'text'"),
            4 => self.put("r\"a\\d\""),
            5 => self.put("\"\"\"long\n  text\"\"\""),
            6 | 7 => self.within("[", "]", |w| w.list(budget, Self::expression)),
            8 => self.within("{", "}", |w| {
                w.list(budget, |w, budget| {
                    w.expression(budget);
                    w.put(":");
                    w.expression(budget);
                });
            }),
            9 | 10 => {
                self.put("call");
                self.within("(", ")", |w| {
                    w.list(budget, |w, budget| {
                        w.put("name");
                        w.put("(");
                        w.expression(budget);
                        w.put(")");
                    });
                });
            }
            11 | 12 => {
                self.expression(budget / 2);
                let operators = ["+", "-", "and", "or", "in", "==", "%", "|", "//", "not in"];
                let at = self.pick(operators.len() as u64) as usize;
                if matches!(operators[at], "in" | "==" | "not in") {
                    // Comparisons do not chain.
                    self.put("+");
                } else {
                    self.put(operators[at]);
                }
                self.expression(budget / 2);
            }
            _ => self.compound(choice, budget),
        }
    }

    /// The expressions that `expression` has no room for.
    fn compound(&mut self, choice: u64, budget: u64) {
        match choice {
            13 => {
                self.put("name");
                self.within("[", "]", |w| {
                    w.put("1");
                    w.put(":");
                    w.put("-");
                    w.put("2");
                });
            }
            14 => self.within("(", ")", |w| {
                w.expression(budget / 2);
                w.put("if");
                w.expression(budget / 2);
                w.put("else");
                w.expression(budget / 2);
            }),
            15 => self.within("[", "]", |w| {
                w.expression(budget / 2);
                w.put("for");
                w.put("a, b");
                w.put("in");
                w.within("(", ")", |w| w.expression(budget / 2));
                w.put("if");
                w.put("a");
            }),
            16 => self.within("(", ")", |w| {
                w.put("lambda x, *y:");
                w.expression(budget / 2);
            }),
            17 => {
                self.put("name");
                self.put(".");
                self.put("field");
            }
            18 => self.within("(", ")", |w| {
                w.put("not");
                w.expression(budget / 2);
            }),
            _ => self.within("(", ")", |w| {
                w.expression(budget / 2);
                w.put(",");
            }),
        }
    }

    fn block(&mut self, level: usize, budget: u64) {
        for _ in 0..=self.pick(3) {
            self.statement(level, budget);
        }
    }

    fn statement(&mut self, level: usize, budget: u64) {
        let indent = "  ".repeat(level);
        if self.pick(4) == 0 {
            self.comments += 1;
            self.text.push_str(&format!("{indent}# c{}\n", self.comments));
        }
        if self.pick(3) == 0 {
            self.text.push_str("\n\n");
        }
        self.text.push_str(&indent);
        let choice = if budget < 4 { 3 + self.pick(2) } else { self.pick(6) };
        match choice {
            0 => {
                self.text.push_str("def f(a, b=1, *c, **d):\n");
                self.block(level + 1, budget / 2);
            }
            1 => {
                self.text.push_str("if x :  # header\n");
                self.block(level + 1, budget / 2);
                self.text.push_str(&format!("{indent}else:\n"));
                self.block(level + 1, budget / 2);
            }
            2 => {
                self.text.push_str("for a,b in c: d(a) ; e(b)\n");
            }
            3 => {
                self.put("x =");
                self.expression(budget);
                self.text.push('\n');
            }
            _ => {
                self.expression(budget);
                self.comments += 1;
                self.text.push_str(&format!("# c{}\n", self.comments));
            }
        }
    }
}

#[test]
fn random_programs_keep_their_meaning_and_their_comments() {
    let mut laid_out = 0;
    for seed in 1..=400_u64 {
        let mut writer = Writer {
            seed: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15),
            text: String::new(),
            depth: 0,
            comments: 0,
        };
        writer.block(0, 12);
        let Writer { text, comments, .. } = writer;
        for kind in [FileKind::Library, FileKind::Package] {
            let got = match format("x.star", &text, kind) {
                Ok(got) => got,
                // What the writer got wrong is not the formatter's fault; its own errors are.
                Err(error) => {
                    assert_ne!(error.code, "MAE0199", "seed {seed}: {error}\n{text}");
                    continue;
                }
            };
            laid_out += 1;
            for comment in 1..=comments {
                let line = format!("# c{comment}\n");
                assert_eq!(got.matches(&line).count(), 1, "seed {seed}: {line}{text}\n=>\n{got}");
            }
            assert_eq!(format("x.star", &got, kind).expect("it parses"), got, "seed {seed}");
        }
    }
    assert!(laid_out > 300, "only {laid_out} programs parse");
}
