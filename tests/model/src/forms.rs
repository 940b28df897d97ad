//! The forms: what each makes of the register's content (section 5, table under C5).

use crate::mutation::Mutation;
use crate::settings::Settings;
use crate::state::{BOTH, Config, LEAD, OTHER, PARTS, bit, counter, generation, other};

impl Settings {
    /// The primary goes on without its peer: all parts it is in become its own, in one step.
    pub(crate) fn remove_of(&self, from: &Config, by: u8) -> Config {
        self.without_peer(from, by, |part, held| match self.mutation {
            Mutation::RemoveLeadOnly | Mutation::RemoveStuck => part == LEAD && held,
            Mutation::RemoveOtherOnly => part == OTHER && held,
            Mutation::RemoveStripsAway => true,
            _ => held,
        })
    }

    /// S takes the lead, and the parts it is in; parts only the other node holds stay with it, served by nobody.
    pub(crate) fn takeover_of(&self, from: &Config, by: u8) -> Config {
        let all = self.breaks(Mutation::TakeoverAllParts);
        let mut config = self.without_peer(from, by, |_, held| held || all);
        if self.breaks(Mutation::StaleTakeover) || self.breaks(Mutation::BlindCas) {
            config.in_sync[LEAD] = bit(by);
        }
        config
    }

    /// The primary gives all to S at once; the result is that of a takeover by S.
    pub(crate) fn abdicate_of(&self, from: &Config, by: u8) -> Config {
        let all = self.breaks(Mutation::AbdicateAllParts);
        self.without_peer(from, other(by), |_, held| held || all)
    }

    /// S becomes primary; nobody's data change.
    pub(crate) fn swap_of(&self, from: &Config, by: u8) -> Config {
        let mut config = *from;
        config.epoch += 1;
        config.primary = other(by);
        if self.breaks(Mutation::SwapTakesAll) {
            for part in PARTS {
                config.in_sync[part] |= bit(other(by));
            }
        }
        config
    }

    /// S leaves one part.
    pub(crate) fn drop_of(&self, from: &Config, by: u8) -> Config {
        let mut config = *from;
        config.epoch += 1;
        config.in_sync[self.dropped_part()] = bit(by);
        config
    }

    /// The part DROP is about.
    pub(crate) fn dropped_part(&self) -> u8 {
        if self.breaks(Mutation::DropLead) {
            LEAD
        } else {
            OTHER
        }
    }

    /// S comes back to one part.
    pub(crate) fn add_of(&self, from: &Config, by: u8, part: u8) -> Config {
        let mut config = *from;
        config.epoch += 1;
        config.primary = by;
        config.in_sync[part] = BOTH;
        if self.breaks(Mutation::AddLeadAddsAll) && part == LEAD {
            config.in_sync[OTHER] |= bit(other(by));
        }
        config
    }

    /// The same unit under another arbiter: a new generation.
    pub(crate) fn moved(from: &Config, generation: u8) -> Config {
        let mut config = *from;
        config.epoch = 10 * generation + counter(from.epoch) + 1;
        config
    }

    /// `promote --force` by a node: a new generation; the lead, and the parts it is in sync for.
    pub(crate) fn force_of(&self, from: &Config, by: u8, origin: u8) -> Config {
        let mut config = self.without_peer(from, by, |part, held| held || part == LEAD);
        config.origin = origin;
        config.epoch = 10 * (generation(from.epoch) + 1) + counter(from.epoch) + 1;
        config
    }

    /// `promote --force --part` by the primary: the same, with the other part as well. The lead does not stay MIRROR: the
    /// other node may not know of it, and may take the lead over in the old generation.
    pub(crate) fn force_part_of(&self, from: &Config, by: u8, origin: u8) -> Config {
        let keeps_lead = self.breaks(Mutation::ForcePartKeepsMirror);
        let mut config = self.without_peer(from, by, |part, held| {
            part == OTHER || (held && !keeps_lead)
        });
        config.epoch = 10 * (generation(from.epoch) + 1) + counter(from.epoch) + 1;
        config.origin = origin;
        config
    }

    fn without_peer(&self, from: &Config, by: u8, takes: impl Fn(u8, bool) -> bool) -> Config {
        let mut config = *from;
        config.epoch += 1;
        config.primary = by;
        for part in PARTS {
            if takes(part, from.has(by, part)) {
                config.in_sync[part] = bit(by);
            }
        }
        config
    }
}
