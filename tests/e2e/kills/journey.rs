//! One run after the other, each killed at the first point at which none before it was: a whole matrix within one cluster's birth.
//!
//! What it proves: whatever a run that was killed there has left, the next one goes on from it at least to the next point. What it does not
//! prove: that one undisturbed run makes an end of it; only the last of the journey does. A point that was passed by, because
//! what lies there was done already, waits for the next journey.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::mpsc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use anyhow::anyhow;
use anyhow::bail;
use anyhow::ensure;

use super::points::Point;
use super::points::steady;
use super::running::Running;
use super::running::Said;
use crate::support::Cluster;
use crate::support::Ended;

/// How long after the first host that is held the others have to be held as well, so that one kill counts for several.
const TOGETHER: Duration = Duration::from_millis(250);
const GLANCE: Duration = Duration::from_millis(10);
/// What a script still does after its run's death is not counted for the next one.
const AFTERLIFE: Duration = Duration::from_millis(400);

/// How long a run may go on after a host died.
const PATIENCE: Duration = Duration::from_mins(4);

/// What is done to a run at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strike<'a> {
    Kill,
    /// The power of this host is cut, and the run is left to find out. The points that are wanted lie all on it.
    PowerCut(&'a str),
}

/// How a run of the journey ended.
pub(crate) enum Leg {
    /// It was struck at all of these at once, each on a host of its own but for what it said.
    Struck(Vec<Point>),
    /// It came by no point that is wanted.
    Ended(Ended),
}

/// Runs the command until it comes by any of the points that are wanted, and strikes there. Those it was struck at are taken out.
pub(crate) fn leg(
    cluster: &Cluster,
    command: &[&str],
    strike: Strike<'_>,
    wanted: &mut BTreeSet<Point>,
) -> Result<Leg> {
    let hosts: Vec<_> = cluster.hosts().into_iter().map(|host| host.name().to_owned()).collect();
    let held: Vec<_> = hosts.iter().map(|host| bed::Points::on(&cluster.bed, host)).collect();
    for (host, points) in hosts.iter().zip(&held) {
        let calls: Vec<String> = wanted.iter().filter_map(|point| call(point, host)).collect();
        points.hold_at_any(&calls)?;
    }
    let lines: BTreeSet<(Said, usize)> = wanted.iter().filter_map(line).collect();
    let run = Running::with(cluster, command)?;
    let kill = run.killer();
    let (says, said) = mpsc::channel();
    let reader = thread::spawn(move || {
        // Nobody listens only where this function has failed.
        _ = says.send(until_said(run, &lines));
    });
    let mut seen = None;
    loop {
        match said.recv_timeout(GLANCE) {
            Ok(told) => break seen = Some(told?),
            Err(RecvTimeoutError::Timeout) if !held.iter().any(bed::Points::reached) => {}
            Err(RecvTimeoutError::Timeout) => {
                thread::sleep(TOGETHER);
                break;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let at: Vec<Option<String>> = held.iter().map(bed::Points::held).collect::<Result<_>>()?;
    let ended_itself = matches!(&seen, Some((_, None))) && at.iter().all(Option::is_none);
    match strike {
        _ if ended_itself => {}
        Strike::Kill => kill()?,
        Strike::PowerCut(host) => {
            cluster.host(host).power_cut()?;
            // A run that stands still for its reader is read to its end below, within the product's own deadlines.
            if seen.is_none() {
                let Ok(told) = said.recv_timeout(PATIENCE) else {
                    kill()?;
                    bail!("the run went on for {PATIENCE:?} after the power of {host} was cut");
                };
                seen = Some(told?);
            }
        }
    }
    // Whatever became of the run: the scripts go on, as they do on a host whose operator is gone.
    for points in &held {
        points.go_on()?;
        points.calls()?;
    }
    let (run, line) = match seen {
        Some(told) => told,
        None => said.recv()??,
    };
    reader.join().map_err(|_| anyhow!("the reader panicked"))?;
    let ended = run.end()?;
    match strike {
        _ if ended_itself => return Ok(Leg::Ended(ended)),
        // It was over before the signal came.
        Strike::Kill if ended.code.is_some() => return Ok(Leg::Ended(ended)),
        Strike::Kill => thread::sleep(AFTERLIFE),
        Strike::PowerCut(host) => ensure!(ended.code != Some(0), "{host} was cut off, and the run ended well: {ended}"),
    }
    let calls = hosts.iter().zip(at).filter_map(|(host, at)| Some((host, at?)));
    let calls: Vec<Point> = calls.filter_map(|(host, at)| point(wanted, host, &at)).collect();
    let points: Vec<Point> =
        line.into_iter().filter_map(|(said, nth)| said_point(wanted, &said, nth)).chain(calls).collect();
    for point in &points {
        wanted.remove(point);
    }
    Ok(Leg::Struck(points))
}

/// Reads until a line that is wanted, with its number in this run.
fn until_said(mut run: Running, lines: &BTreeSet<(Said, usize)>) -> Result<(Running, Option<(Said, usize)>)> {
    let mut counts: BTreeMap<Said, usize> = BTreeMap::new();
    let mut found = None;
    run.says(1, |said| {
        let said = steady(said);
        let nth = counts.entry(said.clone()).or_default();
        *nth += 1;
        let wanted = (said, *nth);
        let here = lines.contains(&wanted);
        if here {
            found = Some(wanted);
        }
        here
    })?;
    Ok((run, found))
}

/// As the stand-ins of this host are asked for it.
fn call(point: &Point, of: &str) -> Option<String> {
    match point {
        Point::Inside(_, host, call, nth) if host == of => Some(format!("{nth} {call}")),
        _ => None,
    }
}

fn line(point: &Point) -> Option<(Said, usize)> {
    match point {
        Point::Line(_, said, nth) => Some((said.clone(), *nth)),
        _ => None,
    }
}

fn point(wanted: &BTreeSet<Point>, host: &str, at: &str) -> Option<Point> {
    wanted.iter().find(|point| call(point, host).as_deref() == Some(at)).cloned()
}

fn said_point(wanted: &BTreeSet<Point>, said: &Said, nth: usize) -> Option<Point> {
    wanted.iter().find(|point| line(point).is_some_and(|(other, of)| other == *said && of == nth)).cloned()
}
