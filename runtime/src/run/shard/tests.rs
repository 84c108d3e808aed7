use super::{Shard, Waits};

#[test]
fn shares_are_neighbours_and_as_equal_as_they_can_be() {
    for of in 1..9 {
        for samples in 0..30 {
            let shares: Vec<_> = (1..=of).map(|index| Shard { index, of }.share(samples)).collect();
            assert_eq!((shares[0].start, shares[of - 1].end), (0, samples));
            assert!(shares.windows(2).all(|pair| pair[0].end == pair[1].start), "{shares:?}");
            let sizes = || shares.iter().map(ExactSizeIterator::len);
            assert!(sizes().max().unwrap() - sizes().min().unwrap() <= 1, "{shares:?}");
        }
    }
    let whole = Shard { index: 1, of: 1 }.share(usize::MAX);
    assert_eq!(whole, 0..usize::MAX, "nothing overflows");
}

#[test]
fn every_job_is_one_shards() {
    for of in 1..9 {
        let jobs_of = |index| (0..20).filter(|job| Shard { index, of }.takes(*job)).count();
        assert_eq!((1..=of).map(jobs_of).sum::<usize>(), 20);
        let takers = |job| (1..=of).filter(|index| Shard { index: *index, of }.takes(job)).count();
        assert!((0..20).all(|job| takers(job) == 1));
    }
}

#[test]
fn shards_are_read_as_they_are_written() {
    for text in ["1/1", "3/8", "8/8", "65536/65536"] {
        assert_eq!(text.parse::<Shard>().unwrap().to_string(), text);
    }
    for wrong in ["", "3", "0/2", "3/2", "a/b", "1/0", "-1/2", "1/2/3", "1/65537", "1/99999999999999999999"] {
        let error = wrong.parse::<Shard>().unwrap_err();
        assert!(error.contains("as in 3/8"), "{wrong}: {error}");
    }
}

#[test]
fn what_is_waited_for_is_said_in_words() {
    let say = |waits: Waits| waits.to_string();
    let parts = |of, missing: &[usize]| say(Waits::Parts { of, missing: missing.to_vec() });
    assert_eq!(parts(8, &[1, 2, 5, 6, 7]), "3 of 8 parts are there, 1, 2, 5, 6, 7 are missing");
    assert_eq!(parts(2, &[2]), "1 of 2 parts is there, 2 is missing");
    assert_eq!(say(Waits::First), "left to shard 1");
    assert_eq!(say(Waits::Stages { stages: vec!["a".into(), "b".into()] }), "waits for a, b");
}
