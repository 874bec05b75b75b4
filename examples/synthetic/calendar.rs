//! Seconds since the epoch to a date and a time of day, in UTC.

/// A civil date and time of day.
pub(crate) struct Moment {
    pub(crate) year: u64,
    /// 1 to 12.
    pub(crate) month: u64,
    /// 1 to 31.
    pub(crate) day: u64,
    pub(crate) hour: u64,
    pub(crate) minute: u64,
    pub(crate) second: u64,
}

/// The civil moment of `secs` since 1970-01-01T00:00:00Z, by Howard Hinnant's
/// `civil_from_days`: years begin in March, so that the leap day comes last.
pub(crate) const fn moment(secs: u64) -> Moment {
    let days = secs / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months_since_march = (5 * day_of_year + 2) / 153;
    let month =
        if months_since_march < 10 { months_since_march + 3 } else { months_since_march - 9 };
    Moment {
        year: year_of_era + era * 400 + (month <= 2) as u64,
        month,
        day: day_of_year - (153 * months_since_march + 2) / 5 + 1,
        hour: secs / 3_600 % 24,
        minute: secs / 60 % 60,
        second: secs % 60,
    }
}
