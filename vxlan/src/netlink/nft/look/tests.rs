use super::*;

/// The generation of a ruleset that changes with every look, and what the looks find.
struct Ruleset {
    generation: u32,
    found: Vec<Result<u32, ErrorKind>>,
    looks: usize,
}

fn looked(rests: bool, found: &[Result<u32, ErrorKind>]) -> (Option<u32>, usize) {
    let mut ruleset = Ruleset { generation: 7, found: found.to_vec(), looks: 0 };
    let once = |ruleset: &mut Ruleset| {
        let found = ruleset.found[ruleset.looks % ruleset.found.len()];
        ruleset.looks += 1;
        ruleset.generation += u32::from(!rests);
        found.map_err(io::Error::from)
    };
    let generation = |ruleset: &mut Ruleset| Ok(ruleset.generation);
    match settled(5, &mut ruleset, generation, once, |one, other| one == other) {
        Ok(found) => (found.map(|(_, found)| found), ruleset.looks),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_look_is_taken_where_nothing_has_crossed_it_or_two_agree() {
    assert_eq!(looked(true, &[Ok(1)]), (Some(1), 1));
    assert_eq!(looked(false, &[Ok(1), Ok(2), Ok(2)]), (Some(2), 3));
    assert_eq!(looked(false, &[Ok(1), Ok(2)]), (None, 5));
    assert_eq!(looked(true, &[Err(ErrorKind::Interrupted), Err(ErrorKind::NotFound), Ok(3)]), (Some(3), 3));
    assert_eq!(looked(true, &[Err(ErrorKind::Interrupted)]), (None, 5));
}

#[test]
fn what_was_found_while_it_changed_is_not_kept() {
    let mut generation = 7;
    let once = |generation: &mut u32| {
        *generation += 1;
        Ok(())
    };
    let found = settled(5, &mut generation, |now| Ok(*now), once, |(), ()| true).unwrap();
    // Of the generation before it: the next look finds another.
    assert_eq!((found, generation), (Some((8, ())), 9));
}
