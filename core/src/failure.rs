//! Whose fault a failure is, which decides the exit code and whether a bug report is asked for;
//! how errors are told with their causes, and how stable codes of errors are declared.

/// The origin of an error, as every error enum of Maestro reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// The build itself failed: a compiler error, a red test. Exit code 1.
    Build,
    /// What the user wrote is wrong: a build file, a flag, a lock. Exit code 2.
    Input,
    /// The machine is at fault: disk, permission, missing package. Exit code 3.
    Environment,
    /// Maestro is at fault. Exit code 70.
    Internal,
}

impl FailureKind {
    /// The process exit code of this kind.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Build => 1,
            Self::Input => 2,
            Self::Environment => 3,
            Self::Internal => 70,
        }
    }
}

/// An error with its causes in one line. A cause that the error quotes itself is not said twice.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(&format!(": {cause_text}"));
        }
        source = cause.source();
    }
    text
}

/// Declares `Code`, the stable codes of one crate's errors, each with its documentation.
///
/// The doc comment of a code is what `maestro docs CODE` prints: what it means, and behind `Fix:`
/// what to do.
#[macro_export]
macro_rules! error_codes {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal,)*) => {
        /// The stable code of a kind of problem, such as `MAE0121`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[doc = $doc])* $name,)*
        }

        impl Code {
            /// The code as it is printed.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What it means, and behind `Fix:` what to do.
            pub fn documentation(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc, "\n"),*),)* }
            }

            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
        }
    };
}
