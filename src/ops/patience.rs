//! How long answers are waited for.

use std::time::Duration;

/// Longest times for what components are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patience {
    /// One question to a component.
    pub(super) question: Duration,
    /// An answer of several megabytes, which an API server's metrics are.
    pub(super) long_question: Duration,
    /// A request to the API server, tried again, before another control plane is asked.
    pub(super) request: Duration,
}

impl Patience {
    /// 10, 30 and 20 s where a component may take the usual 5 minutes to become healthy, and not less where it may take less: a
    /// machine that is slow in the one is slow in the other, and a late answer would be taken for none.
    pub(super) fn of(health: Duration) -> Self {
        let share = |part: u32, least: u64| (health / part).max(Duration::from_secs(least));
        Self { question: share(30, 10), long_question: share(10, 30), request: share(15, 20) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Patience;

    #[test]
    fn whoever_waits_longer_for_health_waits_longer_for_every_answer() {
        let waits = |health| {
            let Patience { question, long_question, request } = Patience::of(health);
            [question, long_question, request].map(|time| time.as_secs())
        };
        assert_eq!(waits(Duration::from_mins(5)), [10, 30, 20]);
        assert_eq!(waits(Duration::from_secs(20)), [10, 30, 20]);
        assert_eq!(waits(Duration::from_hours(1)), [120, 360, 240]);
    }
}
