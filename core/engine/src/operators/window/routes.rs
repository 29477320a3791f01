//! Which rows of a batch go to which pane, and which are late. Its memory is kept from batch to batch.

use hashbrown::HashMap;

/// From this many panes in a batch on they are found by a map.
const MANY: usize = 16;

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Routes {
    /// Starts of the panes that take rows, with their rows.
    pub(super) panes: Vec<(i64, Vec<u32>)>,
    pub(super) late: Vec<u32>,
    /// Where the panes are, once there are many.
    places: HashMap<i64, usize>,
    spare: Vec<Vec<u32>>,
}

impl Routes {
    pub(super) fn clear(&mut self) {
        self.late.clear();
        self.places.clear();
        self.spare.extend(self.panes.drain(..).map(|(_, mut rows)| {
            rows.clear();
            rows
        }));
    }

    /// The place of a pane's list; the batch's last pane is the likely one.
    pub(super) fn place(&mut self, start: i64) -> usize {
        let known = match self.places.is_empty() {
            true => self.panes.iter().rposition(|(known, _)| *known == start),
            false => self.places.get(&start).copied(),
        };
        known.unwrap_or_else(|| self.new_place(start))
    }

    fn new_place(&mut self, start: i64) -> usize {
        let place = self.panes.len();
        self.panes.push((start, self.spare.pop().unwrap_or_default()));
        if self.panes.len() == MANY {
            self.places.extend(self.panes.iter().enumerate().map(|(place, (start, _))| (*start, place)));
        } else if self.panes.len() > MANY {
            self.places.insert(start, place);
        }
        place
    }

    /// The rows of the pane at a place.
    #[inline]
    pub(super) fn rows(&mut self, place: usize) -> &mut Vec<u32> {
        &mut self.panes[place].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_panes_and_many_are_found_again_in_the_order_of_arrival() {
        let mut routes = Routes::default();
        for panes in [1, MANY - 1, MANY, MANY + 1, 1000, 3] {
            routes.clear();
            // Each pane comes twice, in another order the second time.
            let starts = (0..panes).chain((0..panes).rev()).map(|pane| (pane as i64 - 7) * 10);
            for (row, start) in starts.enumerate() {
                let place = routes.place(start);
                routes.rows(place).push(row as u32);
            }
            let expected = (0..panes).map(|pane| ((pane as i64 - 7) * 10, vec![pane as u32, (2 * panes - 1 - pane) as u32]));
            assert_eq!(routes.panes, expected.collect::<Vec<_>>());
            assert_eq!(routes.places.len(), if panes < MANY { 0 } else { panes }, "many are not searched one by one");
        }
    }
}
