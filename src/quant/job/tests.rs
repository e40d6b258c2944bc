//! Tests of the job.

use super::*;
use crate::formats::atomic::{AtomicFile, write_atomic};
use crate::quant::state_file::write_state;

fn inputs(bits: f64) -> Inputs {
    Inputs::new().with("--bits", bits).with("--rows", 100).with("model", "0f")
}

fn open(directory: &Path, resume: bool) -> (Job, Opening) {
    Job::open(directory, inputs(3.0), resume).unwrap()
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_job_goes_on_where_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path().join("made/if/missing");
    assert_eq!(Job::recorded(&directory).unwrap(), None);
    let (mut job, opening) = open(&directory, true);
    assert_eq!((opening, job.stage(), job.next_block()), (Opening::Fresh, Stage::Calibrate, 0));
    let name = block_name("block", 12);
    assert_eq!(name, "block-00012.state");
    write_state(job.claim(&name).unwrap(), "block", b"x").unwrap();
    job.advance(Stage::Quantize, 13).unwrap();
    drop(job);
    assert_eq!(Job::recorded(&directory).unwrap(), Some(inputs(3.0)));
    let (job, opening) = open(&directory, true);
    assert_eq!((opening, job.stage(), job.next_block()), (Opening::Resumed, Stage::Quantize, 13));
    assert_eq!(job.files().collect::<Vec<_>>(), [name]);
}

#[test]
fn changed_inputs_are_refused_with_each_difference() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path(), true);
    let before = fs::read(directory.path().join(JOB)).unwrap();
    let changed = Inputs::new().with("--bits", 4.5).with("model", "0f").with("--head-bits", 6);
    let error = Job::open(directory.path(), changed, true).unwrap_err().to_string();
    for line in ["--bits: 3 then, 4.5 now", "--rows: 100 then, absent now", "--head-bits: absent then, 6 now"]
    {
        assert!(error.contains(line), "{error}");
    }
    assert!(!error.contains("model:") && error.contains("--no-resume"), "{error}");
    assert_eq!(fs::read(directory.path().join(JOB)).unwrap(), before);
}

#[test]
fn starting_over_deletes_only_what_the_job_lists() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    fs::write(directory.join("thesis.txt"), "years of work").unwrap();
    let (mut job, _) = open(directory, true);
    for name in ["a.state", "b.state"] {
        write_state(job.claim(name).unwrap(), "block", b"x").unwrap();
    }
    // Killed while writing the second again, and before writing a third.
    std::mem::forget(AtomicFile::create(job.claim("b.state").unwrap()).unwrap());
    job.claim("c.state").unwrap();
    write_state(directory.join("not-listed.state"), "block", b"x").unwrap();
    drop(job);
    assert_eq!(names(directory).len(), 7);
    let (job, opening) = Job::open(directory, inputs(5.0), false).unwrap();
    assert!(matches!(opening, Opening::Restarted(_)));
    assert_eq!((job.stage(), job.files().count()), (Stage::Calibrate, 0));
    assert_eq!(names(directory), [JOB, LOCK, "not-listed.state", "thesis.txt"]);
}

#[test]
fn what_a_kill_left_is_cleaned_up() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let (mut job, _) = open(directory, true);
    let mut partial = AtomicFile::create(job.claim("a.state").unwrap()).unwrap();
    partial.write(b"half").unwrap();
    std::mem::forget(partial);
    std::mem::forget(AtomicFile::create(directory.join(JOB)).unwrap());
    drop(job);
    assert_eq!(names(directory).len(), 4);
    let (job, _) = open(directory, true);
    assert_eq!(names(directory), [JOB, LOCK]);
    assert!(!job.path("a.state").exists());
}

#[test]
fn foreign_files_are_refused_and_left_alone() {
    for content in ["{}", r#"{"in_dir": "/models/llama", "progress": "quant"}"#, "hello", "[1, 2"] {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(JOB), content).unwrap();
        for resume in [true, false] {
            let error = Job::open(directory.path(), inputs(3.0), resume).unwrap_err().to_string();
            assert!(error.contains("not exlay's") && error.contains("--work-dir"), "{error}");
        }
        assert_eq!(names(directory.path()), [JOB]);
        assert_eq!(fs::read_to_string(directory.path().join(JOB)).unwrap(), content);
    }
}

#[test]
fn a_file_of_someone_else_is_not_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("measurement.json"), "mine").unwrap();
    let (mut job, _) = open(directory.path(), true);
    let error = job.claim("measurement.json").unwrap_err().to_string();
    assert!(error.contains("measurement.json") && error.contains("move it away"), "{error}");
    assert_eq!(job.files().count(), 0);
}

/// Cut at every length or with any byte changed, a job is damaged, foreign or unchanged, never a
/// panic and never a job with other contents.
#[test]
fn a_damaged_job_starts_over() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let (mut job, _) = open(directory, true);
    write_state(job.claim("a.state").unwrap(), "block", b"x").unwrap();
    job.advance(Stage::Measure, 7).unwrap();
    let record = job.record.clone();
    drop(job);
    let path = directory.join(JOB);
    let good = fs::read(&path).unwrap();
    for length in 0..good.len() {
        fs::write(&path, &good[..length]).unwrap();
        let complete = length + 1 == good.len();
        assert_eq!(matches!(Record::find(&path).unwrap(), Found::Damaged), !complete, "cut at {length}");
    }
    for byte in 0..good.len() {
        let mut bad = good.clone();
        bad[byte] ^= 1;
        fs::write(&path, &bad).unwrap();
        if let Ok(Found::Job(found)) = Record::find(&path) {
            assert_eq!(found, record, "changed at {byte}");
        }
    }
    fs::write(&path, vec![0; good.len()]).unwrap();
    let (mut job, opening) = open(directory, true);
    assert!(matches!(opening, Opening::Restarted(_)));
    assert_eq!((job.stage(), job.next_block()), (Stage::Calibrate, 0));
    assert!(job.claim("a.state").is_ok(), "a state file of the damaged job may be replaced");
}

#[test]
fn another_version_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path(), true);
    let path = directory.path().join(JOB);
    let text = fs::read_to_string(&path).unwrap().replace("\"version\": 1", "\"version\": 2");
    fs::write(&path, text).unwrap();
    let error = Job::open(directory.path(), inputs(3.0), false).unwrap_err().to_string();
    assert!(error.contains("another version"), "{error}");
}

/// A list that leads out of the directory is not believed, even with a right checksum.
#[test]
fn names_that_lead_elsewhere_are_not_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let work = directory.path().join("work");
    let outside = directory.path().join("outside");
    fs::write(&outside, "x").unwrap();
    open(&work, true);
    let mut record = Record::new(inputs(3.0));
    record.files.insert("../outside".into());
    record.save(&work.join(JOB)).unwrap();
    open(&work, false);
    assert!(outside.exists());
    for name in ["", ".", "..", "../a", "a/b", "/a", "a/"] {
        assert!(!record::is_plain_name(name), "{name}");
    }
    assert!(record::is_plain_name("block-00001.state"));
}

#[test]
fn two_processes_do_not_share_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let (job, _) = open(directory.path(), true);
    let error = Job::open(directory.path(), inputs(3.0), false).unwrap_err().to_string();
    assert!(error.contains("another exlay"), "{error}");
    drop(job);
    open(directory.path(), true);
}

#[test]
fn a_text_file_of_the_job_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let (mut job, _) = open(directory.path(), true);
    write_atomic(job.claim("measurement.json").unwrap(), b"1").unwrap();
    write_atomic(job.claim("measurement.json").unwrap(), b"2").unwrap();
    assert_eq!(fs::read(job.path("measurement.json")).unwrap(), b"2");
}
