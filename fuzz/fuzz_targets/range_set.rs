//! A set of ranges is the set of bits that it stands for, whatever is put in and taken out.
#![no_main]

use arbitrary::Arbitrary;
use divvy::array::RangeSet;
use libfuzzer_sys::fuzz_target;
use std::ops::Range;

const BITS: usize = 512;

#[derive(Arbitrary, Debug)]
enum Step {
    Insert(u8, u8),
    Remove(u8, u8),
    Ask(u8, u8),
}

fuzz_target!(|steps: Vec<Step>| {
    let mut set = RangeSet::new();
    let mut bits = [false; BITS];
    let range = |start: u8, len: u8| usize::from(start)..usize::from(start) + usize::from(len);
    for step in steps {
        match step {
            Step::Insert(start, len) => {
                set.insert(range(start, len));
                bits[range(start, len)].fill(true);
            }
            Step::Remove(start, len) => {
                set.remove(range(start, len));
                bits[range(start, len)].fill(false);
            }
            Step::Ask(start, len) => check(&set, &bits, range(start, len)),
        }
        let all: Vec<_> = set.iter().collect();
        assert!(all.iter().all(|range| !range.is_empty()));
        assert!(all.windows(2).all(|two| two[0].end < two[1].start));
    }
    check(&set, &bits, 0..BITS);
});

fn check(set: &RangeSet, bits: &[bool; BITS], asked: Range<usize>) {
    let marked = |ranges: &mut dyn Iterator<Item = Range<usize>>| {
        let mut marked = [false; BITS];
        ranges.for_each(|range| marked[range].fill(true));
        marked
    };
    let inside = marked(&mut set.overlap(asked.clone()));
    let outside = marked(&mut set.missing(asked.clone()));
    for at in 0..BITS {
        assert_eq!(inside[at], asked.contains(&at) && bits[at]);
        assert_eq!(outside[at], asked.contains(&at) && !bits[at]);
    }
    let missing = bits[asked.clone()].iter().filter(|bit| !**bit).count();
    assert_eq!(set.missing_len(asked.clone()), missing);
    assert_eq!(set.contains(&asked), missing == 0);
    assert_eq!(set.len(), bits.iter().filter(|bit| **bit).count());
    assert_eq!(set.is_empty(), set.len() == 0);
}
