//! The grammar of PTX: tokens become functions, variables and statements. Opcodes and names mean nothing here yet.

use super::ParseError;
use super::lex::{Kind, Token, error, tokens};
use super::tree::{FunctionText, Initial, InstructionText, Operand, Statement, Text, VariableText};

/// Reads a text.
pub(super) fn parse(text: &str) -> Result<Text<'_>, ParseError> {
    let tokens = tokens(text)?;
    let mut parser = Parser { tokens: &tokens, at: 0 };
    let mut text = Text::default();
    while parser.at < tokens.len() {
        parser.item(&mut text)?;
    }
    Ok(text)
}

struct Parser<'a, 't> {
    tokens: &'t [Token<'a>],
    at: usize,
}

impl<'a> Parser<'a, '_> {
    fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |token| token.line)
    }

    fn bad<T>(&self, what: &str) -> Result<T, ParseError> {
        let found = match self.peek() {
            Some(Kind::Word(word)) => format!("`{word}`"),
            Some(Kind::Mark(mark)) => format!("`{}`", mark as char),
            Some(other) => format!("{other:?}"),
            None => "the end".into(),
        };
        Err(error(self.line(), &format!("{what}, found {found}")))
    }

    fn peek(&self) -> Option<Kind<'a>> {
        self.tokens.get(self.at).map(|token| token.kind)
    }

    fn take(&mut self, mark: u8) -> bool {
        let is = self.peek() == Some(Kind::Mark(mark));
        self.at += is as usize;
        is
    }

    fn expect(&mut self, mark: u8) -> Result<(), ParseError> {
        if self.take(mark) { Ok(()) } else { self.bad(&format!("expected `{}`", mark as char)) }
    }

    fn word(&mut self) -> Result<&'a str, ParseError> {
        match self.peek() {
            Some(Kind::Word(word)) => {
                self.at += 1;
                Ok(word)
            }
            _ => self.bad("expected a name"),
        }
    }

    /// Reads a number with an optional sign.
    fn int(&mut self) -> Result<u64, ParseError> {
        let negative = self.take(b'-');
        match self.peek() {
            Some(Kind::Int(value)) => {
                self.at += 1;
                Ok(if negative { value.wrapping_neg() } else { value })
            }
            _ => self.bad("expected a number"),
        }
    }

    fn skip_statement(&mut self) -> Result<(), ParseError> {
        while !self.take(b';') {
            if self.peek().is_none() {
                return self.bad("expected `;`");
            }
            self.at += 1;
        }
        Ok(())
    }

    /// Skips `.loc` and `.file`, which end with their line. Returns whether there was one.
    fn skip_line_directive(&mut self) -> bool {
        let Some(Kind::Word(".loc" | ".file")) = self.peek() else { return false };
        let line = self.line();
        while self.peek().is_some() && self.line() == line {
            self.at += 1;
        }
        true
    }

    /// Parses an item at the level of the module.
    fn item(&mut self, text: &mut Text<'a>) -> Result<(), ParseError> {
        if self.skip_line_directive() {
            return Ok(());
        }
        let begin = self.at;
        match self.word()? {
            ".version" => match self.peek() {
                Some(Kind::Float(..)) => self.at += 1,
                _ => return self.bad("expected a version"),
            },
            ".target" => {
                self.word()?;
                while self.take(b',') {
                    self.word()?;
                }
            }
            ".address_size" => {
                if self.int()? != 64 {
                    self.at = begin;
                    return self.bad("only addresses of 64 bits are supported");
                }
            }
            ".section" => {
                while !self.take(b'}') {
                    if self.peek().is_none() {
                        return self.bad("expected `}`");
                    }
                    self.at += 1;
                }
            }
            ".pragma" | ".alias" => self.skip_statement()?,
            _ => {
                self.at = begin;
                let mut external = false;
                while let Some(Kind::Word(link @ (".visible" | ".extern" | ".weak" | ".common"))) = self.peek() {
                    external |= link == ".extern";
                    self.at += 1;
                }
                match self.peek() {
                    Some(Kind::Word(".entry" | ".func")) => text.functions.extend(self.function(external)?),
                    Some(Kind::Word(".global" | ".const" | ".shared")) => {
                        let variables = self.variables(external)?;
                        text.variables.extend(variables);
                    }
                    _ => return self.bad("not a directive that is supported"),
                }
            }
        }
        Ok(())
    }

    /// Reads a function; None for a declaration without a body.
    fn function(&mut self, external: bool) -> Result<Option<FunctionText<'a>>, ParseError> {
        let line = self.line();
        let entry = self.word()? == ".entry";
        let results = if !entry && self.peek() == Some(Kind::Mark(b'(')) { self.params()? } else { Vec::new() };
        let name = self.word()?;
        let params = if self.peek() == Some(Kind::Mark(b'(')) { self.params()? } else { Vec::new() };
        let mut limits = Vec::new();
        loop {
            match self.peek() {
                Some(Kind::Word(".pragma")) => self.skip_statement()?,
                Some(Kind::Word(limit)) if limit.starts_with('.') => {
                    self.at += 1;
                    let mut numbers = Vec::new();
                    while let Some(Kind::Int(_)) = self.peek() {
                        numbers.push(self.int()?);
                        self.take(b',');
                    }
                    limits.push((limit, numbers));
                }
                _ => break,
            }
        }
        if external || self.peek() == Some(Kind::Mark(b';')) {
            self.expect(b';')?;
            return Ok(None);
        }
        self.expect(b'{')?;
        let mut body = Vec::new();
        let mut depth = 1;
        while depth > 0 {
            if self.take(b'{') {
                depth += 1;
                body.push(Statement::Open);
            } else if self.take(b'}') {
                depth -= 1;
                if depth > 0 {
                    body.push(Statement::Close);
                }
            } else if !self.take(b';') && !self.skip_line_directive() {
                body.extend(self.statement()?);
            }
        }
        Ok(Some(FunctionText { line, name, entry, results, params, limits, body }))
    }

    /// Parses `( .param … , … )`.
    fn params(&mut self) -> Result<Vec<VariableText<'a>>, ParseError> {
        self.expect(b'(')?;
        let mut params = Vec::new();
        while !self.take(b')') {
            params.push(self.variable(false)?);
            self.take(b',');
        }
        Ok(params)
    }

    /// Reads a declaration with its `;`.
    fn variables(&mut self, external: bool) -> Result<Vec<VariableText<'a>>, ParseError> {
        let first = self.variable(external)?;
        let mut all = vec![first];
        while self.take(b',') {
            let mut next = all[0].clone();
            (next.elements, next.registers, next.initial) = (None, None, Vec::new());
            next.name = self.word()?;
            self.variable_tail(&mut next)?;
            all.push(next);
        }
        self.expect(b';')?;
        Ok(all)
    }

    /// Parses space, attributes, type and name of one variable.
    fn variable(&mut self, external: bool) -> Result<VariableText<'a>, ParseError> {
        let line = self.line();
        let space = self.word()?;
        let (mut align, mut vector, mut ty) = (None, 1, "");
        while let Some(Kind::Word(word)) = self.peek()
            && word.starts_with('.')
        {
            self.at += 1;
            match word {
                ".align" => align = Some(self.int()? as u32),
                ".v2" => vector = 2,
                ".v4" => vector = 4,
                ".ptr" | ".global" | ".shared" | ".const" | ".local" => {}
                ".attribute" => {
                    self.expect(b'(')?;
                    while !self.take(b')') {
                        self.at += 1;
                    }
                }
                _ => ty = word,
            }
        }
        if ty.is_empty() {
            return self.bad("expected a type");
        }
        let name = self.word()?;
        let mut variable = VariableText {
            line,
            space,
            name,
            ty,
            align,
            external,
            elements: (vector > 1).then_some(vector),
            registers: None,
            initial: Vec::new(),
        };
        self.variable_tail(&mut variable)?;
        Ok(variable)
    }

    /// Reads what follows a variable's name.
    fn variable_tail(&mut self, variable: &mut VariableText<'a>) -> Result<(), ParseError> {
        if self.take(b'<') {
            variable.registers = Some(self.int()? as u32);
            self.expect(b'>')?;
        }
        while self.take(b'[') {
            let count = if self.peek() == Some(Kind::Mark(b']')) { 0 } else { self.int()? };
            self.expect(b']')?;
            variable.elements = Some(variable.elements.unwrap_or(1).saturating_mul(count));
        }
        if self.take(b'=') {
            self.initial(&mut variable.initial)?;
        }
        Ok(())
    }

    fn initial(&mut self, values: &mut Vec<Initial<'a>>) -> Result<(), ParseError> {
        if self.take(b'{') {
            while !self.take(b'}') {
                self.initial(values)?;
                self.take(b',');
            }
            return Ok(());
        }
        match self.peek() {
            Some(Kind::Float(bits, _)) => {
                self.at += 1;
                values.push(Initial::Value(bits));
            }
            Some(Kind::Word("generic")) => {
                self.at += 1;
                self.expect(b'(')?;
                self.initial(values)?;
                self.expect(b')')?;
            }
            Some(Kind::Word(name)) => {
                self.at += 1;
                let offset = if self.take(b'+') { self.int()? } else { 0 };
                values.push(Initial::Address(name, offset));
            }
            _ => values.push(Initial::Value(self.int()?)),
        }
        Ok(())
    }

    /// Reads a statement of a body that is no brace.
    fn statement(&mut self) -> Result<Option<Statement<'a>>, ParseError> {
        let line = self.line();
        if let Some(Kind::Word(word)) = self.peek() {
            match word {
                ".reg" | ".shared" | ".local" | ".param" | ".global" | ".const" => {
                    return Ok(Some(Statement::Variables(self.variables(false)?)));
                }
                ".pragma" => {
                    self.skip_statement()?;
                    return Ok(None);
                }
                _ if word.starts_with('.') => return self.bad("not a directive that is supported"),
                _ => {}
            }
            if self.tokens.get(self.at + 1).map(|token| token.kind) == Some(Kind::Mark(b':')) {
                self.at += 2;
                if self.peek() != Some(Kind::Word(".branchtargets")) {
                    return Ok(Some(Statement::Label(line, word)));
                }
                self.at += 1;
                let mut targets = vec![self.word()?];
                while self.take(b',') {
                    targets.push(self.word()?);
                }
                self.expect(b';')?;
                return Ok(Some(Statement::Targets(line, word, targets)));
            }
        }
        let guard = if self.take(b'@') {
            let negated = self.take(b'!');
            Some((self.word()?, negated))
        } else {
            None
        };
        let line = self.line();
        let opcode = self.word()?;
        let mut operands = Vec::new();
        while !self.take(b';') {
            operands.push(self.operand()?);
            if !self.take(b',') && self.peek() != Some(Kind::Mark(b';')) {
                return self.bad(&format!("expected `,` or `;` after an operand of {opcode}"));
            }
        }
        Ok(Some(Statement::Instruction(InstructionText { line, guard, opcode, operands })))
    }

    fn operand(&mut self) -> Result<Operand<'a>, ParseError> {
        let first = self.single()?;
        if self.take(b'|') {
            let second = self.single()?;
            return Ok(Operand::Pair(Box::new(first), Box::new(second)));
        }
        Ok(first)
    }

    fn list(&mut self, end: u8) -> Result<Vec<Operand<'a>>, ParseError> {
        let mut list = Vec::new();
        while !self.take(end) {
            list.push(self.operand()?);
            if !self.take(b',') && self.peek() != Some(Kind::Mark(end)) {
                return self.bad("expected `,` in a list");
            }
        }
        Ok(list)
    }

    fn single(&mut self) -> Result<Operand<'a>, ParseError> {
        Ok(match self.peek() {
            Some(Kind::Mark(b'!')) => {
                self.at += 1;
                Operand::Not(Box::new(self.single()?))
            }
            Some(Kind::Mark(b'[')) => {
                self.at += 1;
                let inner = self.single()?;
                self.expect(b']')?;
                Operand::Address(Box::new(inner))
            }
            Some(Kind::Mark(b'{')) => {
                self.at += 1;
                Operand::Vector(self.list(b'}')?)
            }
            Some(Kind::Mark(b'(')) => {
                self.at += 1;
                Operand::List(self.list(b')')?)
            }
            Some(Kind::Float(bits, wide)) => {
                self.at += 1;
                Operand::Float(bits, wide)
            }
            Some(Kind::Word(word)) => {
                self.at += 1;
                if self.take(b'+') || self.peek() == Some(Kind::Mark(b'-')) {
                    Operand::Offset(word, self.int()? as i64)
                } else {
                    Operand::Word(word)
                }
            }
            _ => Operand::Int(self.int()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_variables_and_statements() {
        let text = "
            .version 8.0
            .target sm_75, debug
            .address_size 64
            .global .align 4 .u32 g[2] = {1, -2};
            .extern .shared .align 16 .b8 smem[];
            .func (.param .b32 r) f(.param .b32 a);
            .visible .entry k(.param .u64 k_0, .param .align 8 .b8 k_1[24])
            .maxntid 128, 1, 1
            {
                .reg .b32 %r<3>;
                .loc 1 2 3
                @!%p1 ld.v2.u32 {%r1, %r2}, [k_1+8];
                { setp.eq.u32 %p1|%p2, %r1, -1, !%p0; }
            $L: bra $L;
                t: .branchtargets $L, $L;
            }";
        let text = parse(text).unwrap();
        assert_eq!(text.variables.len(), 2);
        assert_eq!(text.variables[0].initial, [Initial::Value(1), Initial::Value(-2i64 as u64)]);
        assert_eq!(text.variables[1].elements, Some(0));
        let k = &text.functions[0];
        assert!(k.entry && k.name == "k" && text.functions.len() == 1);
        assert_eq!((k.params[1].elements, k.params[1].align), (Some(24), Some(8)));
        assert_eq!(k.limits, [(".maxntid", vec![128, 1, 1])]);
        assert_eq!(k.body.len(), 8);
        let Statement::Instruction(ld) = &k.body[1] else { panic!() };
        assert_eq!(ld.guard, Some(("%p1", true)));
        assert_eq!(ld.operands[1], Operand::Address(Box::new(Operand::Offset("k_1", 8))));
        let Statement::Instruction(setp) = &k.body[3] else { panic!() };
        assert_eq!(setp.operands[2], Operand::Int(u64::MAX));
        assert_eq!(setp.operands[3], Operand::Not(Box::new(Operand::Word("%p0"))));
    }

    #[test]
    fn errors_name_the_line() {
        for (text, line) in [
            (".version 8.0\n.address_size 32", 2),
            (".entry k()\n{\n add.s32 %r1 %r2;\n}", 3),
            (".entry k()\n{\n", 2),
            ("\nnonsense", 2),
        ] {
            assert_eq!(parse(text).err().unwrap().line, line, "{text}");
        }
    }
}
