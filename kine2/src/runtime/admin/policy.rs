//! Policies of the cluster, changed online.

use std::net::IpAddr;

use kine2_replication::{Arbiter, Command, LonePolicy, Policies, Unit};

use super::Admin;
use super::commands::check_gateways;
use super::wire::Answer;

/// What can be set, and to what.
pub(crate) const POLICIES: &str = "on-peer-loss stop|prefer-primary|ping=ADDRESS,..., swap-back \
                                   true|false, boot-alone true|false, preferred NODE|none, \
                                   ping-auto-discard true|false";

/// A change of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    OnPeerLoss(LonePolicy),
    SwapBack(bool),
    BootAlone(bool),
    Preferred(Option<String>),
    PingAutoDiscard(bool),
}

impl Change {
    fn parse(key: &str, value: &str) -> Result<Self, String> {
        let refused = |accepted: &str| format!("{key} {value:?}: {accepted} is accepted");
        let flag = match value {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(refused("true or false")),
        };
        match key {
            "on-peer-loss" => match value {
                "stop" => Ok(Self::OnPeerLoss(LonePolicy::Stop)),
                "prefer-primary" => Ok(Self::OnPeerLoss(LonePolicy::PreferPrimary)),
                _ => match value.strip_prefix("ping=").map(addresses) {
                    Some(Some(gateways)) => Ok(Self::OnPeerLoss(LonePolicy::Ping(gateways))),
                    _ => Err(refused("stop, prefer-primary or ping=ADDRESS,...")),
                },
            },
            "swap-back" => Ok(Self::SwapBack(flag?)),
            "boot-alone" => Ok(Self::BootAlone(flag?)),
            "ping-auto-discard" => Ok(Self::PingAutoDiscard(flag?)),
            "preferred" => Ok(Self::Preferred(match value {
                "none" => None,
                name => Some(name.to_owned()),
            })),
            _ => Err(format!("there is no policy {key}; there is: {POLICIES}")),
        }
    }
}

/// Addresses with commas between them; nothing if one is none.
fn addresses(text: &str) -> Option<Vec<IpAddr>> {
    text.split(',').map(|one| one.parse().ok()).collect()
}

impl Admin {
    pub(super) async fn set_policy(&self, key: &str, value: &str) -> Answer {
        let change = match Change::parse(key, value) {
            Ok(change) => change,
            Err(why) => return Answer::failed(why),
        };
        if let (_, Some(refused)) = self.settled().await {
            return refused;
        }
        let (members, policies, arbiter, hears) = self.look(|unit| {
            let config = unit.config();
            let members = config.members.iter().map(|member| member.name.to_string());
            (
                members.collect::<Vec<_>>(),
                config.policies.clone(),
                config.arbiter.clone(),
                unit.hears_arbiter(),
            )
        });
        let wanted = match change {
            Change::OnPeerLoss(policy) => {
                if let LonePolicy::Ping(gateways) = &policy
                    && let Err(error) = check_gateways(gateways).await
                {
                    return Answer::failed(format!("{error:#}"));
                }
                return match arbiter {
                    Arbiter::Witness { address, .. } => Answer::Refused(format!(
                        "the witness at {address} decides, so it is not asked for: `kine2 witness \
                         remove` first, then it is"
                    )),
                    Arbiter::None(now) if now == policy => {
                        Answer::Done(format!("on-peer-loss is {value} already"))
                    }
                    Arbiter::None(_) => self.change_arbiter(Arbiter::None(policy), false).await,
                };
            }
            Change::PingAutoDiscard(ping_auto_discard) => Policies {
                ping_auto_discard,
                ..policies.clone()
            },
            Change::SwapBack(swap_back) => Policies {
                swap_back,
                ..policies.clone()
            },
            Change::BootAlone(boot_alone) => Policies {
                boot_alone,
                ..policies.clone()
            },
            Change::Preferred(Some(name)) if !members.contains(&name) => {
                return Answer::Refused(format!(
                    "there is no node {name}: the nodes are {}",
                    members.join(" and ")
                ));
            }
            Change::Preferred(name) => Policies {
                preferred: name.as_deref().map(Into::into),
                ..policies.clone()
            },
        };
        if wanted == policies {
            return Answer::Done(format!("{key} is {value} already"));
        }
        if !hears {
            return Answer::Refused(
                "the witness does not answer, and keeps the policies: try again when `kine2 status` \
                 shows it"
                    .to_owned(),
            );
        }
        let command = Command::SetPolicies(wanted.clone());
        let done = move |unit: &Unit| unit.config().policies == wanted;
        match self.command(command, done).await {
            true => Answer::Done(format!("{key} is {value} now, on both nodes")),
            false => Answer::failed(
                "it did not come into force: `kine2 events` says why, if it was refused".to_owned(),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_accepted_is_named_with_what_would_be() {
        assert_eq!(
            Change::parse("preferred", "none"),
            Ok(Change::Preferred(None))
        );
        assert_eq!(
            Change::parse("on-peer-loss", "prefer-primary"),
            Ok(Change::OnPeerLoss(LonePolicy::PreferPrimary))
        );
        let gateways = ["192.0.2.1", "2001:db8::1"].map(|one| one.parse().unwrap());
        assert_eq!(
            Change::parse("on-peer-loss", "ping=192.0.2.1,2001:db8::1"),
            Ok(Change::OnPeerLoss(LonePolicy::Ping(gateways.into())))
        );
        for (key, value, named) in [
            ("on-peer-loss", "ping", "ping=ADDRESS"),
            ("on-peer-loss", "ping=1.2.3.4,", "ping=ADDRESS"),
            ("on-peer-loss", "go", "prefer-primary"),
            ("swap-back", "yes", "true or false"),
            ("boot-alone", "", "true or false"),
            ("speed", "high", "swap-back true|false"),
        ] {
            let why = Change::parse(key, value).unwrap_err();
            assert!(why.contains(named) && why.contains(key), "{why}");
        }
    }
}
