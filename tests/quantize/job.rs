//! A job that is taken up again: changed flags, and what `--no-resume` may delete.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use exlay::quant::job::{Job, Stage};
use serde_json::json;

use crate::{Convert, expect, files, shared};

#[test]
fn changed_flags_are_refused_with_the_difference() {
    let home = tempfile::tempdir().unwrap();
    let (work, output) = (home.path().join("work"), home.path().join("out"));
    let convert = |bits: &str| {
        Convert::new(&shared().model, &work)
            .with("-m", &shared().measurement)
            .with("-cf", &output)
            .with("-b", bits)
    };
    expect(&convert("3.0").run(), 0);
    let (before, finished) = (files(&work), files(&output));

    let stderr = expect(&convert("3.5").run(), 1);
    let last = stderr.lines().last().unwrap();
    assert!(
        stderr.contains("--bits") && stderr.contains("3.5") && stderr.contains("--no-resume"),
        "{stderr}"
    );
    assert!(!stderr.contains("--rows"), "only what differs is named: {last}");
    let stderr = expect(&convert("3.0").with("-r", "5").run(), 1);
    assert!(stderr.contains("--rows") && stderr.contains('4') && stderr.contains('5'), "{stderr}");
    assert_eq!(files(&work), before, "a refused job stays as it was");

    // The same command again finds nothing to do.
    let stderr = expect(&convert("3.0").run(), 0);
    assert!(stderr.contains("finished already"), "{stderr}");
    assert_eq!(files(&output), finished);

    // The working directory alone names the job; a flag beside it is no less heard.
    let resume = |flags: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_exlay"));
        command.arg("convert").arg("-o").arg(&work).arg("-cf").arg(&output).args(flags).output().unwrap()
    };
    let stderr = expect(&resume(&[]), 0);
    assert!(stderr.contains("finished already"), "{stderr}");
    let stderr = expect(&resume(&["-b", "3.5"]), 1);
    assert!(stderr.contains("--bits"), "{stderr}");

    // Another output of the same job is written anew, one with other content is left alone.
    let other = home.path().join("other");
    expect(&convert("3.0").with("-cf", &other).run(), 0);
    assert_eq!(files(&other), finished);
    std::fs::write(other.join("notes.txt"), "mine").unwrap();
    let stderr = expect(&convert("3.0").with("-cf", &other).run(), 1);
    assert!(stderr.contains("--output") && stderr.contains("other files"), "{stderr}");
}

#[test]
fn no_resume_deletes_only_what_the_job_lists() {
    let home = tempfile::tempdir().unwrap();
    let (work, output) = (home.path().join("work"), home.path().join("out"));
    let convert = Convert::new(&shared().model, &work).with("-m", &shared().measurement).with("-cf", &output);
    expect(&convert.run(), 0);
    let foreign = ["notes.txt", "block-00077.state", "measurement.json", ".block-00078.state.exlay-partial"];
    for name in foreign {
        std::fs::write(work.join(name), name).unwrap();
    }
    std::fs::write(work.join("block-00000.state"), b"damaged").unwrap();
    let first = files(&output);
    std::fs::remove_dir_all(&output).unwrap();
    let stderr = expect(&convert.flag("--no-resume").run(), 0);
    assert!(stderr.contains("anew"), "{stderr}");
    for name in foreign {
        assert_eq!(std::fs::read(work.join(name)).unwrap(), name.as_bytes(), "{name}");
    }
    assert_eq!(files(&output), first);
}

#[test]
fn two_jobs_do_not_write_one_output() {
    let home = tempfile::tempdir().unwrap();
    let output = home.path().join("out");
    let convert = |work: &str| {
        Convert::new(&shared().model, &home.path().join(work))
            .with("-m", &shared().measurement)
            .with("-cf", &output)
    };
    let refused = |what: &str| {
        let stderr = expect(&convert("second").run(), 1);
        assert!(stderr.contains("--output") && stderr.contains(what), "{stderr}");
        assert!(!home.path().join("second/job.json").exists(), "refused before it is recorded");
    };
    let mut first = convert("first").command().stderr(std::process::Stdio::null()).spawn().unwrap();
    let (started, note) = (Instant::now(), home.path().join("out.exlay-job"));
    while std::fs::metadata(&note).map_or(0, |file| file.len()) == 0 {
        assert!(started.elapsed() < Duration::from_secs(60) && first.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(1));
    }
    refused("another exlay is writing");
    first.kill().unwrap();
    first.wait().unwrap();
    // The lock went with the process. What it left aside is still its own, until there is nothing any more.
    let partial = home.path().join("out.exlay-partial");
    std::fs::create_dir_all(&partial).unwrap();
    std::fs::write(partial.join("a"), "hours of work").unwrap();
    refused("out.exlay-partial is the unfinished model of the job in");
    assert_eq!(std::fs::read(partial.join("a")).unwrap(), b"hours of work");
    std::fs::remove_dir_all(&partial).unwrap();
    expect(&convert("second").run(), 0);
    assert!(!note.exists() && !partial.exists());
    let stderr = expect(&convert("first").run(), 1);
    assert!(stderr.contains("--output") && stderr.contains("holds other files"), "{stderr}");
}

/// A finished job in `work`, its output in `out`.
fn finished(home: &Path) -> (Convert, PathBuf, PathBuf) {
    let (work, output) = (home.join("work"), home.join("out"));
    let convert = Convert::new(&shared().model, &work).with("-m", &shared().measurement).with("-cf", &output);
    expect(&convert.run(), 0);
    (convert, work, output)
}

/// Killed when the output had its name and the job did not know, or when only the name was missing.
#[test]
fn a_kill_beside_the_renaming_costs_nothing() {
    let home = tempfile::tempdir().unwrap();
    let (convert, work, output) = finished(home.path());
    let (state, expected) = (files(&work), files(&output));
    let modified = || std::fs::metadata(output.join("output.safetensors")).unwrap().modified().unwrap();
    let written = modified();
    let inputs = Job::recorded(&work).unwrap().unwrap();
    for renamed in [true, false] {
        let (mut job, _) = Job::open(&work, inputs.clone(), true).unwrap();
        job.advance(Stage::Compile, 0).unwrap();
        drop(job);
        assert_ne!(files(&work), state);
        let owner = json!({ "work": work.canonicalize().unwrap(), "fingerprint": inputs.fingerprint() });
        std::fs::write(home.path().join("out.exlay-job"), owner.to_string()).unwrap();
        if !renamed {
            std::fs::rename(&output, home.path().join("out.exlay-partial")).unwrap();
        }
        let stderr = expect(&convert.run(), 0);
        assert_eq!(stderr.contains("finished already"), renamed, "{stderr}");
        assert!(files(&output) == expected && files(&work) == state);
        assert_eq!(modified(), written, "nothing is written again");
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 2, "nothing is left beside");
    }
}

#[test]
fn a_finished_output_beside_a_lost_job_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let (convert, work, output) = finished(home.path());
    let expected = files(&output);
    for lost in [true, false] {
        match lost {
            true => std::fs::remove_file(work.join("job.json")).unwrap(),
            false => std::fs::write(work.join("job.json"), "").unwrap(),
        }
        let state = files(&work);
        // Not only the first time: a job that is recorded now would find the output to be its own.
        for _ in 0..2 {
            let stderr = expect(&convert.run(), 1);
            assert!(stderr.contains("--output") && stderr.contains("holds other files"), "{stderr}");
            assert!(files(&output) == expected && files(&work) == state);
        }
    }
}
