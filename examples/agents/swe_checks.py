"""Checks of standard-library modules: expressions whose expected values come from the unchanged modules.

Every value is a built-in type with an exact repr. An expression refers to its module by the last part of its name.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Subject:
    """A module to copy: the files of the standard library that it needs, and expressions that test it."""

    files: tuple[str, ...]  # relative to the standard library; the first one is imported
    checks: tuple[str, ...]

    @property
    def module(self) -> str:
        """The dotted name in the package."""
        return self.files[0].removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def alias(self) -> str:
        """The name of the module in the expressions."""
        return self.module.rpartition(".")[2]


def subject(files: str, *checks: str) -> Subject:
    """A subject from file names separated by spaces."""
    return Subject(tuple(files.split()), checks)


_TEXT = "'The quick brown fox, well-known for its jumps, met a lazy dog.'"
_INI = "'[a]\\nx = 1\\ny = %(x)s2\\n[b]\\nflag = yes\\nlong = one\\n  two\\n'"
_LEFT, _RIGHT = "['one', 'two', 'three', 'four', 'six']", "['ore', 'two', 'tree', 'four', 'five']"

SUBJECTS = (
    subject(
        "textwrap.py",
        f"textwrap.wrap({_TEXT}, 14)",
        f"textwrap.fill({_TEXT}, 20, initial_indent='* ', subsequent_indent='  ')",
        f"textwrap.wrap({_TEXT}, 15, max_lines=2, placeholder=' ...')",
        "textwrap.wrap('abcdefghijklmnopqrstuvwxyz and more', 7)",
        f"textwrap.shorten({_TEXT}, 30)",
        "textwrap.dedent('    a\\n      b\\n\\n    c\\n')",
        "textwrap.indent('a\\n\\nb\\n', '> ')",
    ),
    subject(
        "shlex.py",
        "shlex.split('a \"b c\" d\\\\ e # f', comments=True)",
        "shlex.split(\"x='1 2' y\\\"3\\\"\", posix=False)",
        "list(shlex.shlex('a && b || c; d>e', punctuation_chars=True))",
        "[shlex.quote(s) for s in ('', 'plain', 'two words', \"it's\")]",
        "shlex.join(['echo', 'a b', '$HOME'])",
    ),
    subject(
        "colorsys.py",
        "[round(x, 6) for x in colorsys.rgb_to_hsv(0.2, 0.4, 0.6)]",
        "[round(x, 6) for x in colorsys.hsv_to_rgb(0.3, 0.5, 0.9)]",
        "[round(x, 6) for x in colorsys.rgb_to_hls(0.7, 0.3, 0.1)]",
        "[round(x, 6) for x in colorsys.hls_to_rgb(0.8, 0.6, 0.4)]",
        "[round(x, 6) for x in colorsys.rgb_to_yiq(0.1, 0.5, 0.9)]",
        "[round(x, 6) for x in colorsys.yiq_to_rgb(0.4, 0.1, -0.1)]",
    ),
    subject(
        "fractions.py",
        "str(fractions.Fraction('3.14159').limit_denominator(100))",
        "str(fractions.Fraction(3, 4) + fractions.Fraction(5, 6))",
        "str(fractions.Fraction(3, 8) * fractions.Fraction(4, 9) / 5)",
        "[str(divmod(fractions.Fraction(-7, 2), fractions.Fraction(2, 3)))]",
        "[round(fractions.Fraction(n, 2)) for n in (-5, -3, 1, 3, 5)]",
        "str(round(fractions.Fraction(22, 7), 3))",
        "[fractions.Fraction(1, 3) < 0.5, fractions.Fraction(1, 2) >= fractions.Fraction(2, 3)]",
        "str(fractions.Fraction(2, 3) ** -3)",
    ),
    subject(
        "statistics.py",
        "statistics.quantiles([5, 1, 9, 3, 7, 11, 2], n=4)",
        "statistics.quantiles([5, 1, 9, 3, 7, 11, 2], n=3, method='inclusive')",
        "statistics.median_grouped([1, 2, 2, 3, 4, 4, 4, 5], interval=2)",
        "[statistics.median([3, 1, 4, 1]), statistics.median_low([3, 1, 4, 1]), statistics.median_high([3, 1, 4, 2])]",
        "round(statistics.stdev([2.5, 3.25, 5.5, 11.25]), 9)",
        "statistics.multimode('aabbbcccd')",
        "[round(x, 9) for x in statistics.linear_regression([1, 2, 3, 5], [2, 4, 5, 9])]",
        "round(statistics.NormalDist(10, 2).overlap(statistics.NormalDist(12, 3)), 9)",
    ),
    subject(
        "configparser.py",
        f"(lambda p: (p.read_string({_INI}), p.get('a', 'y'), p.getboolean('b', 'flag'), p.get('b', 'long'))[1:])"
        "(configparser.ConfigParser())",
        f"(lambda p: (p.read_string({_INI}), p.sections(), p.options('b'), p.has_option('a', 'z')))"
        "(configparser.ConfigParser())[1:]",
        "(lambda p: (p.read_string('[s]\\nk = ${t:v}/x\\n[t]\\nv = 7\\n'), p.get('s', 'k'))[1])"
        "(configparser.ConfigParser(interpolation=configparser.ExtendedInterpolation()))",
        "(lambda p: (p.read_dict({'s': {'n': '5', 'f': '2.5'}}), p.getint('s', 'n'), p.getfloat('s', 'f'), "
        "p.get('s', 'q', fallback='none'))[1:])(configparser.ConfigParser())",
        "(lambda p: (p.read_string('[s]\\nkey\\nother: 1 ; note\\n# c\\n'), dict(p.items('s')))[1])"
        "(configparser.ConfigParser(allow_no_value=True, inline_comment_prefixes=(';',)))",
    ),
    subject(
        "difflib.py",
        f"list(difflib.unified_diff({_LEFT}, {_RIGHT}, lineterm=''))",
        f"list(difflib.context_diff({_LEFT}, {_RIGHT}, lineterm=''))",
        f"list(difflib.ndiff({_LEFT}, {_RIGHT}))",
        "difflib.get_close_matches('appel', ['ape', 'apple', 'peach', 'puppy', 'ample'])",
        "difflib.SequenceMatcher(None, 'qabxcd', 'abycdf').get_opcodes()",
        "[round(f(), 6) for m in [difflib.SequenceMatcher(None, 'private', 'volatile')] "
        "for f in (m.ratio, m.quick_ratio, m.real_quick_ratio)]",
    ),
    subject(
        "string.py",
        "string.capwords('  hello wide   world ')",
        "string.Template('$who likes ${what}, $$5').substitute(who='tim', what='kung pao')",
        "string.Template('$who likes $what').safe_substitute(who='tim')",
        "string.Formatter().format('{0:>6}|{name!r}|{1[0]}', 'a', [7], name='n')",
        "string.Formatter().format('{}-{}-{x:{w}}', 1, 2, x=3, w=4)",
    ),
    subject(
        "fnmatch.py",
        "fnmatch.translate('a[!b-d]?*.txt')",
        "fnmatch.translate('*x*[z-a]y[]')",
        "fnmatch.filter(['a.py', 'b.txt', 'ab.py', 'c.pyc'], '?.py*')",
        "[fnmatch.fnmatchcase(name, 'd[0-9]*[!x]') for name in ('d1a', 'dx', 'd2x', 'd37')]",
    ),
    subject(
        "calendar.py",
        "calendar.TextCalendar(6).formatmonth(2023, 10)",
        "calendar.TextCalendar().formatyear(2024, m=4)[:400]",
        "calendar.HTMLCalendar().formatmonth(2024, 2)[:700]",
        "[calendar.monthrange(y, 2) for y in (1900, 2000, 2023, 2024)]",
        "calendar.leapdays(1896, 2025)",
        "calendar.Calendar(3).monthdays2calendar(2024, 5)[:2]",
        "calendar.timegm((2024, 2, 29, 12, 30, 15))",
    ),
    subject(
        "graphlib.py",
        "list(graphlib.TopologicalSorter({'d': ['b', 'c'], 'b': ['a'], 'c': ['a']}).static_order())",
        "(lambda t: (t.prepare(), t.get_ready(), t.done('a'), t.get_ready(), t.is_active())[1::2])"
        "(graphlib.TopologicalSorter({'b': ['a'], 'c': ['a', 'b']}))",
        "graphlib.TopologicalSorter({1: [2], 2: [3], 3: [1], 4: [1]})._find_cycle()",
    ),
    subject(
        "heapq.py",
        "list(heapq.merge([1, 4, 9], [2, 3, 10], [5]))",
        "list(heapq.merge(['dog', 'horse'], ['cat', 'fish', 'kangaroo'], key=len))",
        "list(heapq.merge([9, 4], [8, 3], reverse=True))",
        "heapq.nsmallest(3, [5, 1, 8, 2, 9, 2])",
        "heapq.nlargest(3, [5, 1, 8, 2, 9, 2], key=lambda x: -x)",
    ),
    subject(
        "base64.py",
        "[base64.b32encode(b'hello world'[:n]) for n in (1, 2, 3, 4, 5, 11)]",
        "base64.b32decode(b'nbswy3dpeb3w64tmmq======', casefold=True)",
        "base64.a85encode(b'some bytes\\x00\\x00\\x00\\x00end', wrapcol=12, adobe=True)",
        "base64.a85decode(b'<~87cURD]i,\"Ebo80~>', adobe=True)",
        "[base64.b85encode(b'abcdefgh'[:n]) for n in (1, 4, 7)]",
        "base64.b85decode(b'VPaz%bairpWB')",
        "base64.urlsafe_b64encode(bytes(range(248, 256)))",
    ),
    subject(
        "ipaddress.py",
        "[str(n) for n in ipaddress.ip_network('10.0.0.0/29').subnets(prefixlen_diff=2)]",
        "[str(n) for n in ipaddress.summarize_address_range(ipaddress.ip_address('10.0.0.3'), "
        "ipaddress.ip_address('10.0.0.12'))]",
        "[str(n) for n in ipaddress.collapse_addresses(map(ipaddress.ip_network, "
        "('10.0.0.0/25', '10.0.0.128/25', '10.0.1.0/24', '10.0.4.0/24')))]",
        "[str(n) for n in ipaddress.ip_network('192.0.2.0/28').address_exclude(ipaddress.ip_network('192.0.2.5/32'))]",
        "[str(h) for h in ipaddress.ip_network('192.0.2.8/29').hosts()]",
        "[ipaddress.ip_address('2001:db8::1').exploded, str(ipaddress.ip_address('1:0:0:2:0:0:0:3'))]",
        "str(ipaddress.ip_network('10.1.0.0/16').supernet(new_prefix=12))",
        "ipaddress.IPv4Network('10.2.0.0/20').with_hostmask",
    ),
    subject(
        "reprlib.py",
        "reprlib.repr(list(range(20)))",
        "reprlib.repr({k: k * k for k in range(9)})",
        "reprlib.repr('abcdefghij' * 5)",
        "reprlib.repr(12345678901234567890 ** 4)",
        "reprlib.repr([[[[[[[[1]]]]]]]])",
        "reprlib.repr((set(range(12)), frozenset([1])))",
    ),
    subject(
        "pprint.py",
        "pprint.pformat({'list': list(range(12)), 'text': 'word ' * 9, 'nested': {'a': (1, 2), 'b': [3]}}, width=30)",
        "pprint.pformat([[1, [2, [3, [4]]]], 'x' * 30, b'y' * 40], depth=3, width=24)",
        "pprint.pformat(list(range(30)), compact=True, width=25)",
        "pprint.pformat([1234567, {'k': 7654321}], underscore_numbers=True)",
        "[pprint.isreadable([1, 'a']), pprint.isrecursive({})]",
    ),
    subject(
        "getopt.py",
        "getopt.getopt(['-a', '-bfoo', '--long=x', '--flag', 'rest'], 'ab:', ['long=', 'flag'])",
        "getopt.gnu_getopt(['-a', 'arg1', '-b', 'val', '--fl', 'arg2'], 'ab:', ['flag', 'other='])",
    ),
    subject(
        "optparse.py",
        "(lambda p: (p.add_option('-n', '--number', type='int', default=3, help='how many times to repeat [%default]'),"
        " p.add_option('-q', action='store_true', help='say less'), p.format_help())[2])"
        "(optparse.OptionParser(usage='%prog [options] FILE', prog='demo', description='A small demonstration.'))",
        "(lambda p: (p.add_option('-n', type='int'), p.add_option('--name', action='append'), "
        "p.add_option('-v', action='count'), "
        "vars(p.parse_args(['-n', '0x1f', '--name=a', '--na', 'b', '-vv', 'z'])[0]))[3])(optparse.OptionParser())",
    ),
    subject(
        "argparse.py",
        "(lambda p: (p.add_argument('file', nargs='+', help='files to read'), p.add_argument('--level', type=int, "
        "default=2, choices=(1, 2, 3), help='how deep (default %(default)s)'), p.format_help())[2])"
        "(argparse.ArgumentParser(prog='demo', description='A small demonstration of help.'))",
        "(lambda p: (p.add_argument('a', nargs='?'), p.add_argument('-b', nargs='*', type=float), "
        "p.add_argument('--flag', action='store_true'), vars(p.parse_args(['x', '-b', '1', '2.5', '--fl'])))[3])"
        "(argparse.ArgumentParser(prog='demo'))",
        "(lambda p: (p.add_argument('-v', action='count', default=0), p.add_argument('rest', nargs='*'), "
        "p.parse_known_args(['-vvv', 'x', '--zz', 'y']))[2][1])(argparse.ArgumentParser(prog='demo'))",
    ),
    subject(
        "html/parser.py html/__init__.py html/entities.py",
        "(lambda p, log: (setattr(p, 'handle_starttag', lambda t, a: log.append((t, a))), setattr(p, 'handle_data', "
        "log.append), p.feed('<p class=\"a &amp; b\" id=x>1 &lt; 2<br/></p>'), p.close(), log)[4])"
        "(parser.HTMLParser(), [])",
        "(lambda p, log: (setattr(p, 'handle_comment', log.append), setattr(p, 'handle_decl', log.append), "
        "setattr(p, 'handle_endtag', log.append), p.feed('<!DOCTYPE html><!-- c --><i>x</I ><script>a<b</script>'), "
        "p.close(), log)[5])(parser.HTMLParser(), [])",
    ),
    subject(
        "json/encoder.py json/__init__.py json/decoder.py json/scanner.py",
        "encoder.JSONEncoder(indent=2, sort_keys=True).encode({'b': [1, 2.5, None], 'a': {'x': True, 'y': []}})",
        "''.join(encoder.JSONEncoder(separators=(';', '=')).iterencode([{'k': (1, 'ü\\n')}, float('inf'), False]))",
        "encoder.py_encode_basestring_ascii('é\\U0001f600\"\\\\')",
        "encoder.JSONEncoder(indent='  ', skipkeys=True).encode({1: 2, (3,): 4, 2.5: [None], None: 'n'})",
    ),
    subject(
        "json/decoder.py json/__init__.py json/encoder.py json/scanner.py",
        "decoder.py_scanstring('a\\\\u00e9\\\\ud83d\\\\ude00\\\\n\"tail', 0)",
        "decoder.JSONDecoder().raw_decode('  {\"a\": [1, 2]} rest'.lstrip())",
        "decoder.JSONObject(('\"k\" : 1 , \"l\":[ ] }', 0), True, decoder.JSONDecoder().scan_once, None, None)",
        "decoder.JSONArray(('1, 2 , \"x\"] ', 0), decoder.JSONDecoder().scan_once)",
        "str(decoder.JSONDecodeError('bad', 'ab\\ncd', 4))",
    ),
    subject(
        "tomllib/_parser.py tomllib/__init__.py tomllib/_re.py tomllib/_types.py",
        "_parser.loads('title = \"x\"\\n[a.b]\\nn = 0x1F\\nf = 1.5e3\\nl = [1, 2,\\n 3]\\n')",
        "_parser.loads('[[p]]\\nname = \\'lit\\'\\n[[p]]\\nt = { x = 1, y = \"q\\\\u00e9\" }\\n')",
        "_parser.loads('s = \"\"\"\\nline \\\\\\n   joined\\n\"\"\"\\nb = true\\nk.\"a b\" = -7\\n')",
    ),
    subject(
        "urllib/parse.py urllib/__init__.py",
        "parse.urljoin('http://a/b/c/d;p?q', '../g/./h/../i#s')",
        "tuple(parse.urlsplit('https://User@Example.org:8042/over/there?name=ferret#nose'))",
        "parse.parse_qsl('a=1&b=%20x+y&c=&a=2', keep_blank_values=True)",
        "parse.urlencode([('k', 'a b'), ('l', ['x', 'y'])], doseq=True)",
        "[parse.quote('a/b ü~'), parse.quote_plus('a b&c'), parse.unquote('%41%zz%C3%BC')]",
        "parse.urlsplit('//host:99/p').port",
        "parse.urlunsplit(('http', 'h', 'p', 'q=1', ''))",
    ),
    subject(
        "gettext.py",
        "[gettext.c2py('n%10==1 && n%100!=11 ? 0 : n!=0 ? 1 : 2')(n) for n in (0, 1, 2, 11, 21, 31, 111)]",
        "[gettext.c2py('(n > 1) * 2 + (n != 3)')(n) for n in range(5)]",
        "gettext._expand_lang('de_AT.UTF-8@euro')",
    ),
    subject(
        "email/_parseaddr.py email/__init__.py",
        "_parseaddr.AddressList('\"Doe, J\" <j@x.org>, (note) b@y.com, Group: c@z.net;').addresslist",
        "_parseaddr.parsedate_tz('Tue, 20 Feb 2024 09:08:07 -0530')",
        "_parseaddr.parsedate_tz('7 Mar 99 1:02 PDT')",
        "_parseaddr.quote('a\"b\\\\c')",
    ),
    subject(
        "email/quoprimime.py email/__init__.py",
        "quoprimime.body_encode('caf\\xe9 = ' + 'word ' * 20 + '\\n tail ')",
        "quoprimime.decode('a=3Db =\\nc =E9 \\nend')",
        "quoprimime.header_encode(b'J\\xf6rg ok_')",
        "quoprimime.header_length(b'a b\\xe9=')",
    ),
    subject(
        "_pydecimal.py",
        "str(_pydecimal.Decimal('1.10') + _pydecimal.Decimal('2.205'))",
        "str(_pydecimal.Decimal(2).sqrt())",
        "[str(_pydecimal.Decimal('2.675').quantize(_pydecimal.Decimal('0.01'), rounding=r)) for r in "
        "('ROUND_HALF_UP', 'ROUND_HALF_EVEN', 'ROUND_DOWN', 'ROUND_CEILING')]",
        "str(_pydecimal.Decimal('10').ln()) + str(_pydecimal.Decimal('0.5').exp())",
        "[str(x) for x in divmod(_pydecimal.Decimal('-17.5'), _pydecimal.Decimal('4'))]",
        "format(_pydecimal.Decimal('1234567.891'), ',.2f') + format(_pydecimal.Decimal('0.00012'), '>12.1e')",
        "[_pydecimal.Decimal('1E+3').to_eng_string(), str(_pydecimal.Decimal('-0.000120').normalize())]",
    ),
    subject(
        "_strptime.py",
        "tuple(_strptime._strptime_time('2024-02-29 13:05', '%Y-%m-%d %H:%M'))",
        "tuple(_strptime._strptime_time('Thu 01 May 1997 07:08 PM', '%a %d %b %Y %I:%M %p'))",
        "tuple(_strptime._strptime_time('2023 34 5', '%Y %W %w'))",
        "tuple(_strptime._strptime_time('68 200', '%y %j'))",
        "str(_strptime._strptime_datetime(__import__('datetime').datetime, '2024-05-06 +0530', '%Y-%m-%d %z'))",
    ),
    subject(
        "ast.py",
        "ast.unparse(ast.parse('def f(a, *, b=1, **k):\\n  return [x for x in a if x > b and not k] or (a, -b ** 2)'))",
        "ast.unparse(ast.parse('with a as b, c: pass\\nfor i in y:\\n  del z[1:2, ...]\\nelse: raise E from e'))",
        "ast.dump(ast.parse('a.b(1, *c)', mode='eval'), indent=1)",
        "ast.literal_eval('{1: (2, -3), \\'k\\': [True, None, 1+2j]}')",
        "ast.get_docstring(ast.parse('\"\"\" One.\\n    two\\n\"\"\"'))",
    ),
    subject(
        "plistlib.py",
        "plistlib.dumps({'n': 1, 'l': [1.5, True, 'x < y'], 'd': b'bytes'}).decode()",
        "plistlib.loads(plistlib.dumps({'a': [1, {'b': b'\\x00' * 50}]}, fmt=plistlib.FMT_BINARY))",
        "plistlib.dumps([1, 'ab', 300, {'k': False}], fmt=plistlib.FMT_BINARY)",
    ),
    subject(
        "csv.py",
        "csv.Sniffer().sniff('a;b;c\\n1;2;3\\n4;5;6\\n').delimiter",
        "csv.Sniffer().has_header('name,age\\nann,31\\nbob,45\\ncyd,27\\n')",
        "list(csv.DictReader(['a,b', '1,2', '3,4,5', '6'], restkey='more', restval='none'))",
        "csv.Sniffer()._guess_quote_and_delimiter('\"a\", \"b\", \"c\"\\n', None)",
    ),
    subject(
        "tarfile.py",
        "tarfile.TarInfo('a/b.txt').tobuf(tarfile.USTAR_FORMAT)[:160].hex()",
        "tarfile.TarInfo('d' * 120).tobuf(tarfile.GNU_FORMAT)[:700].hex()[:200]",
        "tarfile.TarInfo('long/' * 30 + 'x').tobuf(tarfile.PAX_FORMAT)[500:700].hex()",
        "(lambda t: (t.name, t.size, t.isfile()))(tarfile.TarInfo.frombuf("
        "tarfile.TarInfo('ab').tobuf(tarfile.GNU_FORMAT), 'utf-8', 'strict'))",
        "[tarfile.itn(8 ** 6, 8), tarfile.nti(b'\\x80\\x00\\x01\\x00'), tarfile.calc_chksums(b'x' * 512)]",
    ),
)  # fmt: skip
