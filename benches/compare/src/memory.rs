//! Which contenders fit in memory together.

use crate::cell::{Cell, Contender};
use std::fs;

/// The share of the available memory that is used: the guesses are rough, and
/// streams need some too.
const USABLE: f64 = 0.8;

/// The memory that the system could give now; `None` where it does not say.
pub(crate) fn available_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1_024)
}

/// How the contenders of a cell are run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The subject, first in the cell; `None` if not even it fits.
    pub(crate) subject: Option<Contender>,
    /// The others, in groups that fit beside the subject.
    pub(crate) groups: Vec<Vec<Contender>>,
    /// Those that do not fit, each with the bytes it is guessed to need.
    pub(crate) left_out: Vec<(Contender, u64)>,
}

/// Groups the contenders of a cell that holds up to `capacity` keys at once.
pub(crate) fn plan(cell: &Cell, capacity: u64, available_bytes: Option<u64>) -> Plan {
    let usable = available_bytes.map_or(u64::MAX, |bytes| (bytes as f64 * USABLE) as u64);
    let needed = |contender: &Contender| {
        capacity * contender.kind.guessed_bytes_per_key(cell.key_bytes as u64)
    };
    let mut plan = Plan::default();
    let Some((subject, others)) = cell.contenders.split_first() else { return plan };
    if needed(subject) > usable {
        plan.left_out = cell.contenders.iter().map(|one| (*one, needed(one))).collect();
        return plan;
    }
    plan.subject = Some(*subject);
    let beside = usable - needed(subject);
    let mut left = 0;
    for contender in others {
        let needed = needed(contender);
        if needed > beside {
            plan.left_out.push((*contender, needed));
            continue;
        }
        match plan.groups.last_mut() {
            Some(group) if needed <= left => group.push(*contender),
            _ => {
                plan.groups.push(vec![*contender]);
                left = beside;
            }
        }
        left -= needed;
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::cells;
    use crate::engines::Kind;

    fn base() -> Cell {
        cells(2).swap_remove(0)
    }

    #[test]
    fn with_room_for_all_there_is_one_group() {
        let plan = plan(&base(), 1_000_000, None);
        assert_eq!(plan.subject.map(|subject| subject.kind), Some(Kind::Hapax));
        assert_eq!(plan.groups.len(), 1);
        assert_eq!(plan.groups[0].len(), base().contenders.len() - 1);
        assert!(plan.left_out.is_empty());
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_the_rest_grouped() {
        let plan = plan(&base(), 1_000_000, Some(150_000_000));
        let left_out: Vec<_> = plan.left_out.iter().map(|(contender, _)| contender.kind).collect();
        assert_eq!(left_out, [Kind::MokaAhash]);
        assert!(plan.groups.len() > 1);
        let run: usize = plan.groups.iter().map(Vec::len).sum();
        assert_eq!(run + left_out.len() + 1, base().contenders.len());
    }

    #[test]
    fn without_room_for_the_subject_nothing_runs() {
        let plan = plan(&base(), 1_000_000, Some(1_000));
        assert_eq!(plan.subject, None);
        assert_eq!(plan.left_out.len(), base().contenders.len());
    }
}
