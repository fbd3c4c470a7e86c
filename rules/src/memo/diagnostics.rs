//! Remarks as bytes: what a file printed is said again by every build that does not evaluate it.

use maestro_core::FailureKind;
use maestro_core::event::Severity;

use super::codec::{Damaged, Reader, Writer};
use crate::diagnostic::{Diagnostic, Location};
use crate::error::Code;

pub(super) fn write_diagnostic(writer: &mut Writer, diagnostic: &Diagnostic) {
    let Diagnostic { code, severity, message, location, snippet, trace, hints, kind } = diagnostic;
    writer.text(code);
    writer.byte(match severity {
        Severity::Error => 0,
        Severity::Warning => 1,
        Severity::Info => 2,
    });
    writer.text(message);
    writer.flag(location.is_some());
    if let Some(location) = location {
        write_location(writer, location);
    }
    writer.text(snippet);
    writer.list(trace.iter(), |writer, line| writer.text(line));
    writer.list(hints.iter(), |writer, line| writer.text(line));
    writer.byte(match kind {
        FailureKind::Input => 0,
        FailureKind::Environment => 1,
        FailureKind::Build => 2,
        FailureKind::Internal => 3,
    });
}

pub(super) fn write_location(writer: &mut Writer, location: &Location) {
    let Location { file, line, column, end_line, end_column } = location;
    writer.text(file);
    for number in [line, column, end_line, end_column] {
        writer.number(u64::from(*number));
    }
}

pub(super) fn read_location(reader: &mut Reader<'_>) -> Result<Location, Damaged> {
    Ok(Location {
        file: reader.text()?.into(),
        line: reader.small()?,
        column: reader.small()?,
        end_line: reader.small()?,
        end_column: reader.small()?,
    })
}

pub(super) fn read_diagnostic(reader: &mut Reader<'_>) -> Result<Diagnostic, Damaged> {
    let code = reader.text()?;
    let code = Code::ALL.iter().find(|known| known.as_str() == code).ok_or(Damaged)?.as_str();
    let severity = match reader.byte()? {
        0 => Severity::Error,
        1 => Severity::Warning,
        2 => Severity::Info,
        _ => return Err(Damaged),
    };
    let message = reader.text()?.to_owned();
    let location = match reader.flag()? {
        false => None,
        true => Some(read_location(reader)?),
    };
    let snippet = reader.text()?.to_owned();
    let line = |reader: &mut Reader<'_>| Ok(reader.text()?.to_owned());
    let (trace, hints) = (reader.list(line)?, reader.list(line)?);
    let kind = match reader.byte()? {
        0 => FailureKind::Input,
        1 => FailureKind::Environment,
        2 => FailureKind::Build,
        3 => FailureKind::Internal,
        _ => return Err(Damaged),
    };
    Ok(Diagnostic { code, severity, message, location, snippet, trace, hints, kind })
}
