//! A conversion that is killed again and again, at random and while it writes, ends in the bytes of one that is not.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

use crate::{Convert, expect, files, shared};

/// Blocks of the shared model, the head not counted.
const BLOCKS: [&str; 4] =
    ["model.layers.0.self_attn", "model.layers.0.mlp", "model.layers.1.self_attn", "model.layers.1.mlp"];

/// When a process is killed.
enum Moment {
    /// After so much time.
    After(Duration),
    /// When a file is being written, for the n-th time that one is seen.
    Writing(usize),
}

/// True while a file is written aside, in a directory or as one.
fn writing(work: &Path, output: &Path) -> bool {
    let partial = |name: &std::ffi::OsStr| name.to_string_lossy().ends_with(".exlay-partial");
    let inside = |directory: &Path| {
        std::fs::read_dir(directory)
            .is_ok_and(|entries| entries.flatten().any(|entry| partial(&entry.file_name())))
    };
    inside(work) || inside(output.parent().unwrap())
}

/// Waits for the end of the process or kills it at its moment; true when it was killed.
fn kill_at(child: &mut Child, moment: &Moment, work: &Path, output: &Path) -> bool {
    let started = Instant::now();
    let (mut seen, mut was) = (0, false);
    loop {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        let now = match moment {
            Moment::After(time) => started.elapsed() >= *time,
            Moment::Writing(times) => {
                let is = writing(work, output);
                seen += usize::from(is && !was);
                was = is;
                seen >= *times
            }
        };
        if now {
            child.kill().unwrap();
            return !child.wait().unwrap().success();
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Finished blocks on disk.
fn finished(work: &Path, what: &str) -> usize {
    (0..).take_while(|block| work.join(format!("{what}-{block:05}.state")).is_file()).count()
}

/// Number of the first block that a run worked on, from its messages.
fn first_block(stderr: &str, line: &str) -> Option<usize> {
    let start = stderr.lines().find_map(|text| text.strip_prefix(line))?;
    BLOCKS.iter().position(|block| start.starts_with(&format!("{block}.")))
}

/// What was seen of runs that were killed.
#[derive(Clone, Copy, Default)]
pub(crate) struct Survived {
    /// Kills that hit a write.
    pub(crate) in_writes: usize,
    /// Runs that found finished blocks and said with which they went on.
    pub(crate) resumed: usize,
}

impl std::ops::AddAssign for Survived {
    fn add_assign(&mut self, other: Self) {
        self.in_writes += other.in_writes;
        self.resumed += other.resumed;
    }
}

/// Runs a conversion to its end through `kills` kills.
pub(crate) fn through_kills(
    convert: &Convert,
    work: &Path,
    output: &Path,
    kills: usize,
    longest: Duration,
    seed: u64,
) -> Survived {
    let mut random = SmallRng::seed_from_u64(seed);
    let (mut killed, mut survived) = (0, Survived::default());
    std::fs::create_dir_all(work).unwrap();
    loop {
        let moment = if random.random_range(0..3) > 0 {
            Moment::After(longest.mul_f64(random.random()))
        } else {
            Moment::Writing(random.random_range(1..12))
        };
        let before = [finished(work, "measure"), finished(work, "block")];
        let log = work.with_extension("log");
        let mut command = convert.command();
        command.stderr(std::fs::File::create(&log).unwrap()).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        let was_killed = if killed < kills {
            kill_at(&mut child, &moment, work, output)
        } else {
            child.wait().unwrap();
            false
        };
        let stderr = std::fs::read_to_string(&log).unwrap();
        // What is finished is skipped; only a block that was killed between its file and the job's own may come again.
        for (line, done) in [("-- Linear: ", before[0]), ("-- ", before[1])] {
            let text = if line == "-- " { quantized(&stderr) } else { stderr.clone() };
            if let Some(first) = first_block(&text, line) {
                survived.resumed += usize::from(done > 0);
                assert!(first + 1 >= done, "block {first} again, {done} are finished: {stderr}");
            }
        }
        if !was_killed {
            let status = child.wait().unwrap();
            assert!(status.success(), "seed {seed}, after {killed} kills: {stderr}");
            return survived;
        }
        killed += 1;
        survived.in_writes += usize::from(writing(work, output));
    }
}

/// The lines of the quantizing stage that tell of a linear: after the allocation, whose own lines have no error.
fn quantized(stderr: &str) -> String {
    let after = stderr.lines().skip_while(|line| !line.starts_with("-- Allocated"));
    after.filter(|line| line.contains("rfn_error: ")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn quantizing_survives_kills() {
    let home = tempfile::tempdir().unwrap();
    let place = |name: &str| (home.path().join(name).join("work"), home.path().join(name).join("out"));
    let convert = |(work, output): &(std::path::PathBuf, std::path::PathBuf)| {
        Convert::new(&shared().model, work).with("-m", &shared().measurement).with("-cf", output)
    };
    let whole = place("whole");
    let started = Instant::now();
    expect(&convert(&whole).run(), 0);
    let time = started.elapsed();
    let expected = files(&whole.1);
    let mut survived = Survived::default();
    for seed in 0..3 {
        let killed = place(&format!("killed-{seed}"));
        survived += through_kills(&convert(&killed), &killed.0, &killed.1, 10, time, seed);
        let written = files(&killed.1);
        assert!(written == expected, "seed {seed}: {:?}", written.keys());
        let left: Vec<_> = files(killed.1.parent().unwrap().join("work").as_path()).into_keys().collect();
        assert!(left.iter().all(|name| !name.ends_with(".exlay-partial")), "{left:?}");
    }
    assert!(survived.in_writes > 0, "no kill fell into a write");
    assert!(survived.resumed > 0, "no run went on after finished blocks");
}

#[test]
fn measuring_survives_kills() {
    let home = tempfile::tempdir().unwrap();
    let (work, output) = (home.path().join("work"), home.path().join("measurement.json"));
    let convert = Convert::new(&shared().model, &work).with("-om", &output);
    through_kills(&convert, &work, &output, 6, Duration::from_secs(8), 7);
    assert_eq!(std::fs::read(&output).unwrap(), std::fs::read(&shared().measurement).unwrap());
}

/// Steps of writing the output that the journal says are done.
fn written(output: &Path) -> u64 {
    let journal = output.with_file_name("out.exlay-partial").join("writer.partial");
    let journal = std::fs::read(journal).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
    journal.map_or(0, |journal| journal["mark"].as_u64().unwrap())
}

/// Identity of a file, whatever its name.
#[cfg(unix)]
fn inode(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap())
}

/// A job that is finished but for its output, which is written to `out` in three files.
fn to_compile(home: &Path) -> (Convert, std::path::PathBuf, BTreeMap<String, Vec<u8>>) {
    let (work, output) = (home.join("work"), home.join("out"));
    let convert = Convert::new(&shared().model, &work)
        .with("-m", &shared().measurement)
        .with("-cf", &output)
        .with("-ss", "1");
    expect(&convert.run(), 0);
    let expected = files(&output);
    assert!(expected.contains_key("output-00003-of-00003.safetensors"), "{:?}", expected.keys());
    std::fs::remove_dir_all(&output).unwrap();
    (convert, output, expected)
}

#[test]
#[cfg(unix)]
fn compiling_goes_on_after_kills() {
    let home = tempfile::tempdir().unwrap();
    let (convert, output, expected) = to_compile(home.path());
    let first = home.path().join("out.exlay-partial/shard-00001.partial");
    let (mut kills, mut shard) = (0, None);
    // The embedding, four blocks and the head.
    for step in 1..=6 {
        let mut child = convert.command().stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let before = written(&output);
        while child.try_wait().unwrap().is_none() && written(&output) < step {
            std::thread::sleep(Duration::from_micros(100));
        }
        child.kill().unwrap();
        kills += usize::from(!child.wait().unwrap().success());
        if output.exists() {
            break;
        }
        assert!(written(&output) >= step.max(before), "no step is lost");
        shard = shard.or_else(|| first.exists().then(|| inode(&first)));
    }
    assert!(kills >= 3, "{kills} kills");
    expect(&convert.run(), 0);
    assert!(files(&output) == expected);
    let found = inode(&output.join("output-00001-of-00003.safetensors"));
    assert_eq!(Some(found), shard, "what was complete after the first kill is not written anew");
    let left = std::fs::read_dir(home.path()).unwrap().count();
    assert_eq!(left, 2, "the working directory and the output");
}
