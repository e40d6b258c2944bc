//! A job that is taken up again: changed flags, and what `--no-resume` may delete.

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
