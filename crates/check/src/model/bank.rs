//! A bank: transfers between accounts, and reads of all balances. A transfer that would overdraw is refused by some
//! banks and allowed by others; [`Overdraft`] says which.

use super::Model;
use crate::history::{Call, History, Key, Reply};
use crate::verdict::Evidence;

/// The accounts. What they hold at first is not recorded by Jepsen's bank: the first read says it.
pub struct Bank {
    /// The accounts, ascending.
    pub accounts: Box<[Key]>,
    /// Whether balances may be negative.
    pub overdraft: Overdraft,
}

/// What the accounts hold, in the order of the accounts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Balances {
    /// Not known yet; by how much they have changed.
    Changed(Box<[i64]>),
    /// Known since a read.
    Known(Box<[i64]>),
}

/// Whether an account may owe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdraft {
    /// It may.
    Allowed,
    /// A transfer that would make it owe does not take effect.
    Refused,
}

impl Model for Bank {
    type Call = Call;
    type Reply = Reply;
    type State = Balances;

    fn initial(&self) -> Balances {
        Balances::Changed(vec![0; self.accounts.len()].into())
    }

    fn step(&self, state: &Balances, call: &Call, reply: Option<&Reply>) -> Option<Balances> {
        match (call, reply) {
            (Call::Read, Some(Reply::Balances(read))) => {
                let mut read = read.to_vec();
                read.sort_unstable();
                if !read.iter().map(|(account, _)| account).eq(&self.accounts) {
                    return None;
                }
                let read: Box<[i64]> = read.into_iter().map(|(_, balance)| balance).collect();
                match state {
                    Balances::Changed(_) => Some(Balances::Known(read)),
                    Balances::Known(known) => (read == *known).then(|| state.clone()),
                }
            }
            (Call::Read, _) => Some(state.clone()),
            (Call::Transfer(transfer), _) => {
                let from = self.accounts.binary_search(&transfer.from).ok()?;
                let to = self.accounts.binary_search(&transfer.to).ok()?;
                let mut after = state.clone();
                let (balances, known) = match &mut after {
                    Balances::Changed(balances) => (balances, false),
                    Balances::Known(balances) => (balances, true),
                };
                balances[from] = balances[from].checked_sub(transfer.amount)?;
                if known && balances[from] < 0 && self.overdraft == Overdraft::Refused {
                    return None;
                }
                balances[to] = balances[to].checked_add(transfer.amount)?;
                Some(after)
            }
            _ => None,
        }
    }

    fn reads_only(&self, call: &Call, _: Option<&Reply>) -> bool {
        // The first read makes the balances known, but a read that agrees with the state leaves it: that is what is asked.
        matches!(call, Call::Read)
    }
}

/// The bank that a history's operations speak of: the accounts are those of the first read and of all transfers.
///
/// A read whose total differs from the first one's is a violation by itself.
pub fn bank_of(history: &History) -> Result<Bank, Evidence> {
    let mut first: Option<(u32, &[(Key, i64)])> = None;
    for (i, operation) in history.operations.iter().enumerate() {
        let Some(Reply::Balances(balances)) = operation.reply() else { continue };
        let total =
            |balances: &[(Key, i64)]| balances.iter().map(|(_, balance)| i128::from(*balance)).sum::<i128>();
        match first {
            None => first = Some((i as u32, balances)),
            Some((earlier, known)) if total(known) != total(balances) => {
                return Err(Evidence {
                    operations: vec![earlier, i as u32],
                    reason: format!(
                        "all accounts together hold {} in one read and {} in another",
                        total(known),
                        total(balances)
                    ),
                    sufficient: true,
                    ..Evidence::default()
                });
            }
            Some(_) => {}
        }
    }
    let mut accounts: Vec<Key> =
        first.iter().flat_map(|(_, balances)| balances.iter().map(|(account, _)| *account)).collect();
    if first.is_none() {
        for operation in &history.operations {
            if let Call::Transfer(transfer) = &operation.call {
                accounts.extend([transfer.from, transfer.to]);
            }
        }
    }
    accounts.sort_unstable();
    accounts.dedup();
    Ok(Bank { accounts: accounts.into(), overdraft: Overdraft::Allowed })
}
