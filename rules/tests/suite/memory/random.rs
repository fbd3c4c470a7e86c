//! Random edits: whatever is edited, a build with memory gives what a build without does.

use maestro_rules::Remembered;

use super::RULES;
use super::session::Session;

/// What each package begins with.
const START: &str = r#"
load("//build:rules.star", "lib")
exports_files(["e.txt"])
[lib(name = "t%d" % i, visibility = ["public"]) for i in range(3)]
"#;

/// A row of numbers that a seed determines.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn pick<'t>(&mut self, texts: &[&'t str]) -> &'t str {
        texts.get(self.roll(texts.len() as u64) as usize).copied().unwrap_or_default()
    }
}

/// A package file: targets that depend on each other, on other packages, and on files.
fn package(dice: &mut Dice, number: u64) -> String {
    let mut text = String::from("load(\"//build:rules.star\", \"lib\")\n");
    if dice.roll(3) == 0 {
        text += "load(\"//build:names.star\", \"FLAG\")\n";
        text += "lib(name = \"flagged\", flag = FLAG)\n";
    }
    text += "exports_files([\"e.txt\"])\n";
    text += dice.pick(&["", "# comment\n", "print(\"p\")\n"]);
    for name in 0..3 + dice.roll(2) {
        let mut deps: Vec<String> = Vec::new();
        if name > 0 && dice.roll(2) == 0 {
            deps.push(format!("\":t{}\"", dice.roll(name)));
        }
        if number > 0 && dice.roll(2) == 0 {
            deps.push(format!("\"//p{}:t{}\"", dice.roll(number), dice.roll(3)));
        }
        if dice.roll(40) == 0 {
            deps.push(format!("\"//p{}:t0\"", dice.roll(4)));
        }
        let srcs = dice.pick(&["[]", "glob([\"*.txt\"])", "[\"e.txt\"]", "[\"//p0:e.txt\"]"]);
        let seen = match dice.roll(30) {
            0 => "private",
            1 => "//p3",
            _ => "public",
        };
        let flag = dice.pick(&["", "", " a", " b"]);
        let rest = dice.pick(&["", "", "tags = [\"manual\"]", "deprecation = \"old\""]);
        let deps = deps.join(", ");
        text += &format!(
            "lib(name = \"t{name}\", srcs = {srcs}, deps = [{deps}], visibility = [\"{seen}\"], \
             flag = \"{flag}\", {rest})\n"
        );
    }
    text
}

fn random_edit(dice: &mut Dice) -> (String, Option<String>) {
    let number = dice.roll(4);
    match dice.roll(9) {
        0..=4 => (format!("p{number}/maestro.star"), Some(package(dice, number))),
        5 => (format!("p{number}/e.txt"), (dice.roll(8) > 0).then(|| dice.roll(9).to_string())),
        6 => (format!("p{number}/f.txt"), (dice.roll(2) > 0).then(String::new)),
        7 => {
            let flag = dice.pick(&["a", "b", "c"]);
            let text = format!("visibility([\"//...\"])\nprint('names')\nFLAG = ' {flag}'\n");
            ("build/names.star".to_owned(), Some(text))
        }
        _ => {
            let end = dice.pick(&["", "\n# comment\n"]);
            let rules = RULES.replace(".out\"", dice.pick(&[".out\"", ".o\""]));
            ("build/rules.star".to_owned(), Some(format!("{rules}{end}")))
        }
    }
}

/// Random edits, each followed by a build with memory and one without, which must agree.
#[test]
fn memory_never_shows() {
    for seed in 1..=6u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let pattern = dice.pick(&["//...", "//...", "//p3:all", "//p3:t0"]);
        let mut session = Session::new(
            &[
                ("build/maestro.star", ""),
                ("build/rules.star", RULES),
                ("build/names.star", "visibility([\"//...\"])\nFLAG = ''\n"),
                ("p0/e.txt", ""),
                ("p1/e.txt", ""),
                ("p2/e.txt", ""),
                ("p3/e.txt", ""),
                ("p0/maestro.star", START),
                ("p1/maestro.star", START),
                ("p2/maestro.star", START),
                ("p3/maestro.star", START),
            ],
            &[pattern],
        );
        let (mut fine, mut kept) = (0, 0);
        for step in 0..40 {
            let edits: Vec<(String, Option<String>)> =
                (0..1 + dice.roll(2)).map(|_| random_edit(&mut dice)).collect();
            let edits: Vec<(&str, Option<&str>)> =
                edits.iter().map(|(path, text)| (path.as_str(), text.as_deref())).collect();
            println!("seed {seed}, step {step}: {edits:?}");
            if let Ok(built) = session.edit(&edits) {
                fine += 1;
                kept += usize::from(matches!(built.remembered, Remembered::Delta(_)));
            }
        }
        // An error in what is no longer needed ends an evaluation with memory, and nothing else.
        assert!(fine > 20 && kept + 4 > fine, "seed {seed}: {kept} of {fine} builds used memory");
    }
}
