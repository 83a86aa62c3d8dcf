//! The click log over real files: what is appended is there, sealed, kept and deleted as configured, and no worker waits.

#[path = "support/wait.rs"]
#[allow(dead_code)]
mod wait;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use smartlink::clicklog::{
    AddressDetail, ClickLog, ClickLogs, Dropped, Record, SegmentFile, StorageOptions, segments,
};
use smartlink::types::{AffiliateId, Device, Draw, LinkId, UnixMillis};

#[test]
fn what_is_appended_is_there_at_once_and_sealed_at_the_end() {
    let place = tempfile::tempdir().unwrap();
    let (logs, mut of_workers) = start(options(place.path()), 2);
    for (worker, log) in of_workers.iter_mut().enumerate() {
        for click in 0..100 {
            append(log, &format!("{worker}-{click}")).unwrap();
            let told = lines(place.path()).into_iter().filter(|line| line.contains(&format!("\"{worker}-")));
            assert_eq!(told.count(), click + 1);
        }
    }
    assert!(found(place.path()).iter().all(|segment| segment.is_live));
    drop(of_workers);
    assert!(logs.finish(LONG));
    let sealed = found(place.path());
    assert_eq!(sealed.len(), 2, "the spare ones are gone: {sealed:?}");
    assert!(sealed.iter().all(|segment| !segment.is_live && !fs::read(&segment.path).unwrap().contains(&0)));
    assert_eq!(lines(place.path()).len(), 200);
}

#[test]
fn a_full_segment_is_followed_by_the_next() {
    let place = tempfile::tempdir().unwrap();
    let (logs, mut of_workers) = start(options(place.path()), 1);
    let mut appended = 0;
    // Several segments' worth. Where the storage is behind, the worker is told so and goes on.
    while found(place.path()).iter().filter(|segment| !segment.is_live).count() < 4 {
        appended += u64::from(append(&mut of_workers[0], &appended.to_string()).is_ok());
    }
    drop(of_workers);
    assert!(logs.finish(LONG));
    let ids: Vec<u64> =
        lines(place.path()).iter().map(|line| line.split('"').nth(3).unwrap().parse().unwrap()).collect();
    assert_eq!(ids, (0..appended).collect::<Vec<_>>());
}

#[test]
fn a_segment_is_sealed_when_it_is_old_enough() {
    let place = tempfile::tempdir().unwrap();
    let options = StorageOptions { seal_after: Duration::from_secs(60), ..options(place.path()) };
    let (_logs, mut of_workers) = start(options, 1);
    let log = &mut of_workers[0];
    let now = Instant::now();
    log.keep_up(now);
    append(log, "first").unwrap();
    log.keep_up(now);
    log.keep_up(now + Duration::from_secs(59));
    append(log, "second").unwrap();
    log.keep_up(now + Duration::from_secs(60));
    append(log, "third").unwrap();
    wait::until("the first segment to be sealed", || {
        let sealed: Vec<_> = found(place.path()).into_iter().filter(|segment| !segment.is_live).collect();
        let [sealed] = &sealed[..] else { return None };
        let text = fs::read_to_string(&sealed.path).unwrap();
        (text.contains("first") && text.contains("second") && !text.contains("third")).then_some(())
    });
}

#[test]
fn old_segments_go_by_size_and_by_age() {
    for (options, kept) in [
        (
            |mut options: StorageOptions| {
                options.keep_bytes = 0;
                options
            },
            0,
        ),
        (
            |mut options: StorageOptions| {
                options.keep_for = Duration::ZERO;
                options
            },
            0,
        ),
        (|options: StorageOptions| options, 3),
    ] as [(fn(StorageOptions) -> StorageOptions, usize); 3]
    {
        let place = tempfile::tempdir().unwrap();
        for start_of_process in 0..3 {
            let (logs, mut of_workers) = start(self::options(place.path()), 1);
            append(&mut of_workers[0], &start_of_process.to_string()).unwrap();
            drop(of_workers);
            assert!(logs.finish(LONG));
        }
        let (logs, of_workers) = start(options(self::options(place.path())), 1);
        drop(of_workers);
        assert!(logs.finish(LONG));
        assert_eq!(lines(place.path()).len(), kept);
    }
}

#[test]
fn without_room_a_worker_is_told_so_and_goes_on_when_there_is_some() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("clicks");
    let (_logs, mut of_workers) = start(options(&directory), 1);
    let log = &mut of_workers[0];
    assert!(log.has_room());
    // No file can be made where there is no directory; what is mapped still is.
    fs::remove_dir_all(&directory).unwrap();
    let dropped = (0..1_000_000).find(|click| append(log, &click.to_string()) == Err(Dropped));
    assert!(dropped.is_some_and(|click| click > 1_000), "{dropped:?}");
    assert!(!log.has_room());
    fs::create_dir(&directory).unwrap();
    wait::until("room", || log.has_room().then_some(()));
    append(log, "after").unwrap();
    assert!(lines(&directory).iter().any(|line| line.contains("\"after\"")));
}

fn options(directory: &Path) -> StorageOptions {
    StorageOptions {
        directory: directory.to_owned(),
        segment_bytes: 1024 * 1024,
        seal_after: Duration::from_secs(3600),
        sync_every: Duration::from_millis(100),
        keep_bytes: u64::MAX,
        keep_for: Duration::from_secs(3600),
        addresses: AddressDetail::Full,
    }
}

fn start(options: StorageOptions, workers: usize) -> (ClickLogs, Vec<ClickLog>) {
    ClickLogs::start(options, &[7; 16], "5f0c", workers).unwrap()
}

fn append(log: &mut ClickLog, click_id: &str) -> Result<(), Dropped> {
    log.append(&Record {
        click_id,
        at: UnixMillis(1_790_000_000_000),
        outcome: "offer",
        link: LinkId::new(301).unwrap(),
        affiliate: AffiliateId::new(67890).unwrap(),
        offer: None,
        rule: None,
        priority: None,
        draw: Draw(1),
        snapshot: "",
        address: [203, 0, 113, 7].into(),
        country: None,
        region: None,
        device: Device::UNKNOWN,
        user_agent: None,
        referrer: None,
        subs: [None; 5],
        probe: false,
    })
}

fn found(directory: &Path) -> Vec<SegmentFile> {
    segments(directory).unwrap()
}

/// All lines, of live segments as well.
fn lines(directory: &Path) -> Vec<String> {
    let texts = found(directory).into_iter().map(|segment| fs::read(segment.path).unwrap());
    texts
        .flat_map(|bytes| {
            let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
            String::from_utf8(bytes[..end].to_vec()).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect()
}

const LONG: Duration = Duration::from_secs(60);
