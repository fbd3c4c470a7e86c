//! Backups while others append, and what takes the place of a damaged journal.

use maestro_executor::storage::StorageError;

use super::*;

/// The folder's files that begin so.
fn files(folder: &Path, begin: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let names = names.map(|name| name.into_string().expect("UTF-8"));
    let mut names: Vec<String> = names.filter(|name| name.starts_with(begin)).collect();
    names.sort_unstable();
    names
}

fn events(survey: &Survey) -> Vec<u64> {
    survey.runs.values().copied().collect()
}

#[tokio::test]
async fn a_backup_is_whole_while_others_append() {
    let folder = TempDir::new().expect("a folder");
    let journal = Arc::new(begun(folder.path()).await);
    let (from, to) = (folder.path().join("runs.db"), folder.path().join("copy.db"));
    let appending = tokio::spawn({
        let journal = journal.clone();
        async move {
            for after in 2..300 {
                journal.append(append(after, 1, vec![cancel("x")])).await.expect("appended");
            }
        }
    });
    let mut seen = Vec::new();
    while !appending.is_finished() && seen.len() < 1_000 {
        let (from, to) = (from.clone(), to.clone());
        let survey = tokio::task::spawn_blocking(move || back_up(&from, &to)).await;
        let survey = survey.expect("no panic").expect("backed up");
        assert!(survey.unreadable.is_empty(), "{survey:?}");
        seen.push(survey.events());
    }
    appending.await.expect("appends");
    assert!(seen.is_sorted() && seen.iter().all(|count| (2..=300).contains(count)), "{seen:?}");
    assert_eq!(back_up(&from, &to).expect("backed up").events(), 300);
    assert_eq!(files(folder.path(), "copy.db"), ["copy.db"], "one file, and nothing beside it");
}

#[tokio::test]
async fn a_backup_takes_no_name_that_is_not_its_own() {
    let folder = TempDir::new().expect("a folder");
    let _journal = begun(folder.path()).await;
    let place = |name: &str| folder.path().join(name);
    std::fs::write(place("thesis.txt"), "of three years").expect("written");
    let check = |name: &str, why: &str| {
        let error = back_up(&place("runs.db"), &place(name)).expect_err("refused").to_string();
        assert!(error.contains(why), "{name}: {error}");
    };
    check("runs.db", "it is a name of the journal itself");
    check("runs.db-wal", "it is a name of the journal itself");
    check("thesis.txt", "it is there, and is no backup");
    check("missing/copy.db", "No such file");
    std::fs::create_dir(place("folder")).expect("made");
    check("folder", "Is a directory");
    assert_eq!(std::fs::read_to_string(place("thesis.txt")).expect("there"), "of three years");
    let missing = back_up(&place("other.db"), &place("copy.db")).expect_err("there is no journal");
    assert!(
        matches!(missing, JournalError::Storage(StorageError::Failed { damaged: false, .. })),
        "{missing}"
    );
    assert!(!place("other.db").exists() && !place("copy.db").exists());
}

#[tokio::test]
async fn two_backups_to_one_name_and_one_that_was_killed() {
    let folder = TempDir::new().expect("a folder");
    let _journal = begun(folder.path()).await;
    let (from, to) = (folder.path().join("runs.db"), folder.path().join("copy.db"));
    // Another process is at it.
    let part = std::fs::File::create(folder.path().join("copy.db.part")).expect("made");
    rustix::fs::flock(&part, rustix::fs::FlockOperation::LockExclusive).expect("locked");
    let error = back_up(&from, &to).expect_err("refused");
    assert!(matches!(error, JournalError::InUse { .. }), "{error}");
    // It dies, and leaves what it wrote.
    std::fs::write(folder.path().join("copy.db.part"), "half of it").expect("written");
    std::fs::write(folder.path().join("copy.db.part-journal"), "stale").expect("written");
    drop(part);
    assert_eq!(back_up(&from, &to).expect("backed up").events(), 2);
    assert_eq!(files(folder.path(), "copy.db"), ["copy.db"]);
}

#[tokio::test]
async fn a_damaged_journal_is_never_a_backup() {
    let folder = TempDir::new().expect("a folder");
    let (from, to) = (folder.path().join("runs.db"), folder.path().join("copy.db"));
    let journal = begun(folder.path()).await;
    for after in 2..200 {
        journal.append(append(after, 1, vec![cancel("x")])).await.expect("appended");
    }
    back_up(&from, &to).expect("backed up");
    drop(journal);
    let sound = std::fs::read(&to).expect("a file");
    let damage = |how: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = sound.clone();
        how(&mut bytes);
        std::fs::write(&from, &bytes).expect("written");
    };
    let pages = |bytes: &mut Vec<u8>| bytes[4_096..].fill(0xa5);
    let cut = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2);
    let text = |bytes: &mut Vec<u8>| bytes.fill(b'x');
    for how in [&pages as &dyn Fn(&mut Vec<u8>), &cut, &text] {
        damage(how);
        for done in [back_up(&from, &to).map(|_| ()), restore(&from, &from, 1).map(|_| ())] {
            let error = done.expect_err("refused");
            let damaged =
                matches!(error, JournalError::Storage(StorageError::Failed { damaged: true, .. }));
            assert!(damaged || matches!(error, JournalError::Unsound { .. }), "{error}");
        }
        assert_eq!(std::fs::read(&to).expect("a file"), sound, "the last good one stays");
        assert_eq!(files(folder.path(), "runs.db"), ["runs.db", "runs.db.lock"], "nothing moved");
    }
    // An event that nobody can read is in the copy as it is in the journal.
    damage(&|bytes| {
        let is_event = |place: &usize| bytes[*place..].starts_with(b"cancel-asked");
        let places: Vec<usize> = (0..bytes.len()).filter(is_event).collect();
        places.into_iter().for_each(|place| bytes[place] = b'?');
    });
    let survey = back_up(&from, &to).expect("backed up");
    assert_eq!((events(&survey), survey.unreadable.len()), (vec![200], 1), "{survey:?}");
}

#[tokio::test]
async fn what_is_restored_is_the_backup_and_the_loss_is_told() {
    let folder = TempDir::new().expect("a folder");
    let (place, backup) = (folder.path().join("runs.db"), folder.path().join("copy.db"));
    let journal = begun(folder.path()).await;
    back_up(&place, &backup).expect("backed up");
    for after in 2..7 {
        journal.append(append(after, 1, vec![cancel("x")])).await.expect("appended");
    }
    let error = restore(&place, &backup, 1).expect_err("somebody has it open");
    assert!(matches!(error, JournalError::InUse { .. }), "{error}");
    drop(journal);
    let restored = restore(&place, &backup, 77).expect("restored");
    assert_eq!(events(&restored.survey), [2]);
    assert_eq!(restored.losses, [Loss { run: run(), kept: 2, lost: 5 }]);
    assert_eq!((restored.unread, restored.aside.is_some()), (None, true));
    let journal = open(folder.path());
    assert_eq!(load(&journal, &run()).await.expect("loads").sequence, 2);
    journal.append(append(2, 1, vec![cancel("y")])).await.expect("it goes on");
    drop(journal);

    // One that says nothing at all.
    std::fs::write(&place, "no database, and long enough to be looked at").expect("written");
    let restored = restore(&place, &backup, 78).expect("restored");
    assert_eq!((restored.losses.len(), restored.unread.is_some()), (0, true));
    let kept = std::fs::read_to_string(restored.aside.expect("kept")).expect("as it was");
    assert!(kept.starts_with("no database"));
    // And one that is not there.
    std::fs::remove_file(&place).expect("removed");
    assert!(restore(&place, &backup, 79).expect("restored").aside.is_none());
    assert_eq!(load(&open(folder.path()), &run()).await.expect("loads").sequence, 2);
}

#[tokio::test]
async fn a_restore_that_was_cut_off_is_made_again_before_anybody_opens_the_journal() {
    let folder = TempDir::new().expect("a folder");
    let (place, backup) = (folder.path().join("runs.db"), folder.path().join("copy.db"));
    drop(begun(folder.path()).await);
    back_up(&place, &backup).expect("backed up");
    // Killed when the main file was aside and its log was not.
    std::fs::write(folder.path().join("runs.db.restoring"), "").expect("written");
    std::fs::rename(&place, folder.path().join("runs.db.damaged-1")).expect("renamed");
    std::fs::write(folder.path().join("runs.db-wal"), "the log of another file").expect("written");
    let opened = SqliteJournal::open(&place, Arc::new(NoCheckpoints));
    assert!(matches!(opened.err(), Some(JournalError::Restoring { .. })));
    assert!(matches!(back_up(&place, &backup), Err(JournalError::Restoring { .. })));
    assert!(!place.exists(), "nobody made an empty one");
    restore(&place, &backup, 2).expect("restored");
    assert_eq!(load(&open(folder.path()), &run()).await.expect("loads").sequence, 2);
}
