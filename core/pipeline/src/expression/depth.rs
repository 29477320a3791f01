//! How deep an expression may be. DataFusion walks it by recursion: while planning on a stack that grows (its feature `recursive_protection`), but on the engine's workers,
//! and wherever it is dropped, on the thread's own. So what is too deep is refused before it is parsed, by its tokens, and then exactly, by its tree.

use super::Fault;
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion, TreeNodeVisitor};
use datafusion_expr::Expr;
use datafusion_sql::sqlparser::{
    dialect::GenericDialect,
    keywords::Keyword,
    tokenizer::{Token, Tokenizer},
};

/// Levels of operators and calls within each other; `a + b + c` has three, the columns' included.
pub(super) const MAX_DEPTH: usize = 500;
/// Tokens that make a level, at most, of one level: `n is not null and`.
const TOKENS_OF_A_LEVEL: usize = 4;

/// Refuses a text whose tree would be so deep that it could not even be dropped. What is no SQL is left to the parser.
pub(super) fn check_text(text: &str) -> Result<(), Fault> {
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, text).tokenize() else { return Ok(()) };
    if deepest(&tokens) > MAX_DEPTH * TOKENS_OF_A_LEVEL { Err(too_deep(text)) } else { Ok(()) }
}

/// Refuses a tree that is too deep.
pub(super) fn check(expr: &Expr, text: &str) -> Result<(), Fault> {
    let mut depth = Depth { now: 0, most: 0 };
    // The visitor does not fail, and so the walk does not.
    let _ = expr.visit(&mut depth);
    if depth.most > MAX_DEPTH { Err(too_deep(text)) } else { Ok(()) }
}

fn too_deep(text: &str) -> Fault {
    let is_or = |token: &Token| matches!(token, Token::Word(word) if word.keyword == Keyword::OR);
    let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize().unwrap_or_default();
    let many_ors = tokens.iter().filter(|token| is_or(token)).count() > MAX_DEPTH / 2;
    let hint = if many_ors { "write a chain of a = 1 or a = 2 as: a in (1, 2)" } else { "compute parts of it in a select before" };
    Fault { message: format!("the expression is more than {MAX_DEPTH} operators deep"), hint: Some(hint.to_owned()), unknown: None }
}

/// More than the depth of what the tokens can mean: commas separate what is side by side, and parentheses hold it; all else but names and values may make a level.
fn deepest(tokens: &[Token]) -> usize {
    #[derive(Default)]
    struct Part {
        levels: usize,
        inside: usize,
        most: usize,
    }
    impl Part {
        fn end(&mut self) -> usize {
            self.most = self.most.max(self.levels + self.inside);
            (self.levels, self.inside) = (0, 0);
            self.most
        }
    }
    let (mut part, mut outer) = (Part::default(), Vec::new());
    for token in tokens {
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                part.levels += 1;
                outer.push(std::mem::take(&mut part));
            }
            Token::RParen | Token::RBracket | Token::RBrace => {
                let inside = part.end();
                // One too many: the parser will say so.
                let Some(around) = outer.pop() else { break };
                part = around;
                part.inside = part.inside.max(inside);
            }
            Token::Comma => _ = part.end(),
            // The branches of a case are side by side too.
            Token::Word(word) if matches!(word.keyword, Keyword::WHEN | Keyword::THEN | Keyword::ELSE) => _ = part.end(),
            Token::Word(word) if word.keyword == Keyword::NoKeyword => {}
            Token::Number(..) | Token::SingleQuotedString(_) | Token::Whitespace(_) | Token::Period | Token::EOF => {}
            _ => part.levels += 1,
        }
    }
    outer.iter_mut().chain([&mut part]).map(Part::end).sum()
}

struct Depth {
    now: usize,
    most: usize,
}

impl TreeNodeVisitor<'_> for Depth {
    type Node = Expr;

    fn f_down(&mut self, _: &Expr) -> datafusion_common::Result<TreeNodeRecursion> {
        self.now += 1;
        self.most = self.most.max(self.now);
        Ok(TreeNodeRecursion::Continue)
    }

    fn f_up(&mut self, _: &Expr) -> datafusion_common::Result<TreeNodeRecursion> {
        self.now -= 1;
        Ok(TreeNodeRecursion::Continue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(text: &str) -> usize {
        deepest(&Tokenizer::new(&GenericDialect {}, text).tokenize().unwrap())
    }

    #[test]
    fn what_is_side_by_side_is_not_deep() {
        assert_eq!(bound("a"), 0);
        assert_eq!(bound("a + b + c"), 2);
        assert_eq!(bound("f(a + b, c) + g(h(i))"), 3 + 1);
        let list = (0..5000).map(|i| i.to_string()).collect::<Vec<_>>().join(", ");
        assert!(bound(&format!("n in ({list})")) < 5);
        assert!(bound(&format!("case {} end", "when n = 1 then 2 ".repeat(5000))) < 5);
        assert!(bound(&"n + ".repeat(5000)) == 5000 && bound(&format!("n{}", "::int".repeat(5000))) >= 5000);
        assert_eq!((bound(&"(".repeat(5000)), bound(&"f(".repeat(5000)), bound("n) + n")), (5000, 5000, 0));
    }
}
