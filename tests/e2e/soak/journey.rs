//! A command that is run again and again, struck each time at something that is left, until it comes to an end.

use std::collections::BTreeSet;
use std::time::Duration;
use std::time::Instant;

use anyhow::Result;
use anyhow::anyhow;

use super::record::Place;
use super::record::Record;
use crate::kills::journey::Leg;
use crate::kills::journey::Strike;
use crate::kills::journey::leg;
use crate::kills::points;
use crate::kills::points::Point;
use crate::support::Cluster;
use crate::support::Ended;

/// How many points are named of those that no journey came by.
const NAMED: usize = 10;

/// What comes after a strike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// The same command, to be struck again.
    GoesOn,
    /// What is judged: one strike is all.
    Once,
}

/// The points that are left of one command for one kind of interruption and one way on.
pub(super) struct Way {
    /// Where the power is cut; the points lie all on it. None where the program is killed.
    pub(super) cut: Option<String>,
    pub(super) then: Then,
    pub(super) left: BTreeSet<Point>,
}

impl Way {
    /// The next run of the command, with the host on again afterwards. Writes on the operator's disk are counted from the start of
    /// an undisturbed run, so they have their turn where one begins.
    fn leg(&mut self, cluster: &Cluster, command: &[&str], first: bool) -> Result<Leg> {
        let call = self.left.iter().find(|point| first && matches!(point, Point::Call(..))).cloned();
        if let Some(call) = call {
            self.left.remove(&call);
            points::kill_of(cluster, command, &call)?;
            return Ok(Leg::Struck(vec![call]));
        }
        let strike = self.cut.as_deref().map_or(Strike::Kill, Strike::PowerCut);
        let leg = leg(cluster, command, strike, &mut self.left);
        if let Some(name) = self.cut.as_deref().filter(|_| !matches!(leg, Ok(Leg::Ended(_)))) {
            let host = cluster.host(name);
            host.power_on()?;
            host.wait()?;
        }
        leg
    }
}

/// The first of what is left, by name.
pub(super) fn named<'a>(ways: impl IntoIterator<Item = &'a Way>) -> String {
    let points: BTreeSet<&Point> = ways.into_iter().flat_map(|way| &way.left).collect();
    let first: Vec<_> = points.iter().take(NAMED).map(|point| format!("`{point}`")).collect();
    match points.len() - first.len() {
        0 => first.join("; "),
        more => format!("{}; and {more} more", first.join("; ")),
    }
}

/// Every way in its turn, until nothing is left, a whole round comes by nothing that is, or `turn` says that the time is up.
pub(super) fn in_rounds<T: Copy>(
    ways: &mut [(T, Way)],
    mut turn: impl FnMut(T, &mut Way) -> Result<Turn>,
) -> Result<()> {
    loop {
        let mut met = 0;
        for (what, way) in ways.iter_mut().filter(|(_, way)| !way.left.is_empty()) {
            let there = way.left.len();
            if turn(*what, way)? == Turn::TimeIsUp {
                return Ok(());
            }
            met += there - way.left.len();
        }
        if met == 0 {
            return Ok(());
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Taken,
    TimeIsUp,
}

/// How its runs are struck and written down.
pub(super) struct Journey<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) command: &'a [&'a str],
    /// When its time is up, where that is before the record's.
    pub(super) until: Option<Instant>,
    /// Where a point belongs, and what is said of it.
    pub(super) case: &'a dyn Fn(&Point) -> (Place, String),
}

/// How a journey ended.
pub(super) struct End<T> {
    pub(super) outcome: Result<T>,
    /// How long its only run took, where that came by nothing: no case says how it ended.
    pub(super) alone: Option<Duration>,
}

impl Journey<'_> {
    /// Each strike is written down once the run after it has come to the next one, or to an end. The end is `judge`'s to say: of the
    /// run that was not struck, or, where there is none, of what comes after the one strike.
    pub(super) fn travel<T>(
        &self,
        record: &mut Record,
        way: &mut Way,
        judge: impl FnOnce(Option<&Ended>) -> Result<T>,
    ) -> Result<End<T>> {
        let mut last: Vec<Point> = Vec::new();
        let mut start = Instant::now();
        let outcome = loop {
            let first = last.is_empty();
            let time_is_up = record.time_is_up() || self.until.is_some_and(|until| Instant::now() >= until);
            let leg = if time_is_up && !first {
                self.cluster.bastide(self.command).map(Leg::Ended)
            } else {
                way.leg(self.cluster, self.command, first)
            };
            match leg {
                Ok(Leg::Struck(points)) if way.then == Then::GoesOn => {
                    self.cases(record, &std::mem::replace(&mut last, points), start.elapsed(), None)?;
                    start = Instant::now();
                }
                Ok(Leg::Struck(points)) => {
                    last = points;
                    break judge(None);
                }
                Ok(Leg::Ended(ended)) => break judge(Some(&ended)),
                Err(error) => break Err(error),
            }
        };
        let took = start.elapsed();
        self.cases(record, &last, took, outcome.as_ref().err())?;
        Ok(End { outcome, alone: last.is_empty().then_some(took) })
    }

    fn cases(
        &self,
        record: &mut Record,
        points: &[Point],
        took: Duration,
        error: Option<&anyhow::Error>,
    ) -> Result<()> {
        for point in points {
            let (place, what) = (self.case)(point);
            record.ended(&place, &what, took, error.map_or(Ok(()), |error| Err(anyhow!("{error:#}"))))?;
        }
        Ok(())
    }
}
