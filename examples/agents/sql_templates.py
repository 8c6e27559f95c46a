"""Question templates over the databases; every gold query joins at least two tables."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A kind of question.

    In the SQL fields, {a} {b} {c} are the quoted cells of a row returned by `pick`. In `steps` and `answer`, {s1} {s2}
    are the quoted first cells returned by earlier steps. `wrong` is a plausible but false `answer`.
    """

    text: str
    hardness: str
    tables: tuple[str, ...]
    pick: str
    gold: str
    steps: tuple[tuple[str, str], ...]  # (thought, query)
    thought: str
    answer: str
    wrong: str


UNICODE = (
    Template(
        text="How many characters whose name begins with the word {a} have the general category '{b}'?",
        hardness="medium",
        tables=("character", "general_category"),
        pick="SELECT c.first_word, g.meaning FROM character c JOIN general_category g ON g.code = c.category_code "
        "GROUP BY 1, 2 HAVING COUNT(*) >= 2 ORDER BY 1, 2",
        gold="SELECT COUNT(*) FROM character AS c JOIN general_category AS g ON c.category_code = g.code "
        "WHERE c.first_word = {a} AND g.meaning = {b}",
        steps=(("I need the code of that category.", "SELECT code FROM general_category WHERE meaning = {b}"),),
        thought="With the code I can count the characters that begin with the word and have this category.",
        answer="SELECT COUNT(*) FROM character WHERE first_word = {a} AND category_code = {s1}",
        wrong="SELECT COUNT(*) FROM character WHERE first_word = {a}",
    ),
    Template(
        text="Among the characters of East Asian width '{a}', how many are there in each major class of categories?",
        hardness="hard",
        tables=("character", "general_category", "width"),
        pick="SELECT w.meaning FROM width w JOIN character c ON c.width_code = w.code GROUP BY 1 ORDER BY 1",
        gold="SELECT g.major_class, COUNT(*) FROM character AS c JOIN width AS w ON c.width_code = w.code "
        "JOIN general_category AS g ON c.category_code = g.code WHERE w.meaning = {a} GROUP BY g.major_class",
        steps=(("First the code of the width.", "SELECT code FROM width WHERE meaning = {a}"),),
        thought="Now I join the characters of this width with their categories and count per major class.",
        answer="SELECT major_class, COUNT(*) FROM general_category, character "
        "WHERE category_code = code AND width_code = {s1} GROUP BY major_class",
        wrong="SELECT category_code, COUNT(*) FROM character WHERE width_code = {s1} GROUP BY category_code",
    ),
    Template(
        text="Which three characters of the general category '{a}' and of East Asian width '{b}' have the largest "
        "code points? Give code point and name, the largest first (fewer if there are fewer).",
        hardness="hard",
        tables=("character", "general_category", "width"),
        pick="SELECT g.meaning, w.meaning FROM character c JOIN general_category g ON g.code = c.category_code "
        "JOIN width w ON w.code = c.width_code GROUP BY 1, 2 HAVING COUNT(*) >= 2 ORDER BY 1, 2",
        gold="SELECT c.codepoint, c.name FROM character AS c JOIN general_category AS g ON c.category_code = g.code "
        "JOIN width AS w ON c.width_code = w.code WHERE g.meaning = {a} AND w.meaning = {b} "
        "ORDER BY c.codepoint DESC LIMIT 3",
        steps=(
            ("First the code of the category.", "SELECT code FROM general_category WHERE meaning = {a}"),
            ("And the code of the width.", "SELECT code FROM width WHERE meaning = {b}"),
        ),
        thought="With both codes I can sort the matching characters by code point.",
        answer="SELECT codepoint, name FROM character WHERE category_code = {s1} AND width_code = {s2} "
        "ORDER BY codepoint DESC LIMIT 3",
        wrong="SELECT codepoint, name FROM character WHERE category_code = {s1} AND width_code = {s2} "
        "ORDER BY codepoint LIMIT 3",
    ),
    Template(
        text="Which general category is the most frequent among the characters whose name begins with {a}? Give its "
        "meaning and the number of characters; of equals, the first in the alphabet.",
        hardness="hard",
        tables=("character", "general_category"),
        pick="SELECT first_word FROM character GROUP BY 1 HAVING COUNT(*) >= 4 ORDER BY 1",
        gold="SELECT g.meaning, COUNT(*) AS n FROM character AS c JOIN general_category AS g "
        "ON c.category_code = g.code WHERE c.first_word = {a} GROUP BY g.meaning ORDER BY n DESC, g.meaning LIMIT 1",
        steps=(("How many such characters are there?", "SELECT COUNT(*) FROM character WHERE first_word = {a}"),),
        thought="I count them per category, with the categories' meanings from their own table.",
        answer="SELECT meaning, n FROM general_category JOIN (SELECT category_code, COUNT(*) AS n FROM character "
        "WHERE first_word = {a} GROUP BY category_code) ON category_code = code ORDER BY n DESC, meaning LIMIT 1",
        wrong="SELECT category_code, COUNT(*) FROM character WHERE first_word = {a} GROUP BY 1 ORDER BY 2 LIMIT 1",
    ),
)

TIME_ZONES = (
    Template(
        text="In month {b} of {c}, how many zones of the region {a} were ahead of UTC?",
        hardness="hard",
        tables=("region", "zone", "month_offset"),
        pick="SELECT DISTINCT r.name, o.month, o.year FROM region r JOIN zone z ON z.region_id = r.id "
        "JOIN month_offset o ON o.zone_id = z.id ORDER BY 1, 2, 3",
        gold="SELECT COUNT(*) FROM month_offset AS o JOIN zone AS z ON o.zone_id = z.id "
        "JOIN region AS r ON z.region_id = r.id "
        "WHERE r.name = {a} AND o.month = {b} AND o.year = {c} AND o.utc_minutes > 0",
        steps=(("First the id of the region.", "SELECT id FROM region WHERE name = {a}"),),
        thought="Now I count the positive offsets of that month over the region's zones.",
        answer="SELECT COUNT(*) FROM month_offset WHERE month = {b} AND year = {c} AND utc_minutes > 0 "
        "AND zone_id IN (SELECT id FROM zone WHERE region_id = {s1})",
        wrong="SELECT COUNT(*) FROM month_offset WHERE month = {b} AND year = {c} AND utc_minutes > 0",
    ),
    Template(
        text="Which cities of the region {a} had summer time in month {b} of {c}?",
        hardness="hard",
        tables=("region", "zone", "month_offset"),
        pick="SELECT r.name, o.month, o.year FROM region r JOIN zone z ON z.region_id = r.id JOIN month_offset o "
        "ON o.zone_id = z.id WHERE o.summer_time = 1 GROUP BY 1, 2, 3 HAVING COUNT(*) <= 25 ORDER BY 1, 2, 3",
        gold="SELECT z.city FROM zone AS z JOIN region AS r ON z.region_id = r.id JOIN month_offset AS o "
        "ON o.zone_id = z.id WHERE r.name = {a} AND o.month = {b} AND o.year = {c} AND o.summer_time = 1",
        steps=(("First the id of the region.", "SELECT id FROM region WHERE name = {a}"),),
        thought="Now the cities whose row for that month is marked as summer time.",
        answer="SELECT city FROM zone WHERE region_id = {s1} AND id IN "
        "(SELECT zone_id FROM month_offset WHERE month = {b} AND year = {c} AND summer_time = 1)",
        wrong="SELECT city FROM zone WHERE region_id = {s1}",
    ),
    Template(
        text="By how many minutes do the largest and the smallest UTC offset in the region {a} differ in month {b} "
        "of {c}?",
        hardness="hard",
        tables=("region", "zone", "month_offset"),
        pick="SELECT r.name, o.month, o.year FROM region r JOIN zone z ON z.region_id = r.id JOIN month_offset o "
        "ON o.zone_id = z.id GROUP BY 1, 2, 3 HAVING COUNT(*) >= 2 ORDER BY 1, 2, 3",
        gold="SELECT MAX(o.utc_minutes) - MIN(o.utc_minutes) FROM month_offset AS o JOIN zone AS z "
        "ON o.zone_id = z.id JOIN region AS r ON z.region_id = r.id "
        "WHERE r.name = {a} AND o.month = {b} AND o.year = {c}",
        steps=(
            ("First the id of the region.", "SELECT id FROM region WHERE name = {a}"),
            ("How many zones does it have here?", "SELECT COUNT(*) FROM zone WHERE region_id = {s1}"),
        ),
        thought="The answer is the difference of the extremes over these zones.",
        answer="SELECT MAX(utc_minutes) - MIN(utc_minutes) FROM month_offset, zone "
        "WHERE zone_id = id AND region_id = {s1} AND month = {b} AND year = {c}",
        wrong="SELECT MAX(utc_minutes) FROM month_offset, zone WHERE zone_id = id AND region_id = {s1} "
        "AND month = {b} AND year = {c}",
    ),
    Template(
        text="Of the zones with summer time in month {a} of {b}, how many lie in each region? Give the region names.",
        hardness="extra",
        tables=("region", "zone", "month_offset"),
        pick="SELECT DISTINCT month, year FROM month_offset WHERE summer_time = 1 ORDER BY 1, 2",
        gold="SELECT r.name, COUNT(*) FROM month_offset AS o JOIN zone AS z ON o.zone_id = z.id JOIN region AS r "
        "ON z.region_id = r.id WHERE o.month = {a} AND o.year = {b} AND o.summer_time = 1 GROUP BY r.name",
        steps=(
            (
                "How many zones is that in all?",
                "SELECT COUNT(*) FROM month_offset WHERE month = {a} AND year = {b} AND summer_time = 1",
            ),
        ),
        thought="Now I group those zones by the name of their region.",
        answer="SELECT name, COUNT(*) FROM region JOIN zone ON region_id = region.id WHERE zone.id IN (SELECT zone_id "
        "FROM month_offset WHERE month = {a} AND year = {b} AND summer_time = 1) GROUP BY name",
        wrong="SELECT name, COUNT(*) FROM region JOIN zone ON region_id = region.id GROUP BY name",
    ),
)

LIBRARY = (
    Template(
        text="How many functions of the module {a}, methods included, take at least {b} parameters?",
        hardness="medium",
        tables=("function", "module"),
        pick="SELECT m.name, f.num_parameters FROM module m JOIN function f ON f.module_id = m.id "
        "WHERE f.num_parameters >= 3 GROUP BY 1, 2 ORDER BY 1, 2",
        gold="SELECT COUNT(*) FROM function AS f JOIN module AS m ON f.module_id = m.id "
        "WHERE m.name = {a} AND f.num_parameters >= {b}",
        steps=(("First the id of the module.", "SELECT id FROM module WHERE name = {a}"),),
        thought="Now I count its functions with enough parameters.",
        answer="SELECT COUNT(*) FROM function WHERE module_id = {s1} AND num_parameters >= {b}",
        wrong="SELECT COUNT(*) FROM function WHERE module_id = {s1} AND num_parameters > {b}",
    ),
    Template(
        text="Which class of the module {a} has the most methods in the table, and how many? Of equals, the first in "
        "the alphabet.",
        hardness="hard",
        tables=("class", "function", "module"),
        pick="SELECT m.name FROM module m JOIN class c ON c.module_id = m.id GROUP BY 1 HAVING COUNT(*) > 1 ORDER BY 1",
        gold="SELECT c.name, COUNT(*) AS n FROM class AS c JOIN module AS m ON c.module_id = m.id JOIN function AS f "
        "ON f.class_id = c.id WHERE m.name = {a} GROUP BY c.id ORDER BY n DESC, c.name LIMIT 1",
        steps=(
            ("First the id of the module.", "SELECT id FROM module WHERE name = {a}"),
            ("How many classes does it have?", "SELECT COUNT(*) FROM class WHERE module_id = {s1}"),
        ),
        thought="I count the methods of each of these classes.",
        answer="SELECT class.name, COUNT(*) AS n FROM class, function WHERE class_id = class.id "
        "AND class.module_id = {s1} GROUP BY class.id ORDER BY n DESC, class.name LIMIT 1",
        wrong="SELECT class.name, COUNT(*) AS n FROM class, function WHERE class_id = class.id "
        "AND class.module_id = {s1} GROUP BY class.id ORDER BY n, class.name LIMIT 1",
    ),
    Template(
        text="How many classes descend, directly or through other classes, from the class {a} of the module {b}?",
        hardness="extra",
        tables=("class", "module"),
        pick="SELECT DISTINCT g.name, m.name FROM class g JOIN class p ON p.base_id = g.id JOIN class c "
        "ON c.base_id = p.id JOIN module m ON m.id = g.module_id ORDER BY 1, 2",
        gold="WITH RECURSIVE descendant(id) AS (SELECT c.id FROM class AS c JOIN class AS g ON c.base_id = g.id "
        "JOIN module AS m ON g.module_id = m.id WHERE g.name = {a} AND m.name = {b} UNION SELECT c.id "
        "FROM class AS c JOIN descendant AS d ON c.base_id = d.id) SELECT COUNT(*) FROM descendant",
        steps=(
            ("First the id of the module.", "SELECT id FROM module WHERE name = {b}"),
            ("Then the id of the class.", "SELECT id FROM class WHERE name = {a} AND module_id = {s1}"),
            ("Its direct children.", "SELECT id, name FROM class WHERE base_id = {s2} LIMIT 10"),
        ),
        thought="Children can have children, so I follow base_id recursively.",
        answer="WITH RECURSIVE d(id) AS (SELECT id FROM class WHERE base_id = {s2} UNION "
        "SELECT class.id FROM class JOIN d ON class.base_id = d.id) SELECT COUNT(*) FROM d",
        wrong="SELECT COUNT(*) FROM class WHERE base_id = {s2}",
    ),
    Template(
        text="Which modules have a function or method named {a}? Give the module names.",
        hardness="medium",
        tables=("function", "module"),
        pick="SELECT name FROM function GROUP BY 1 HAVING COUNT(DISTINCT module_id) BETWEEN 2 AND 12 ORDER BY 1",
        gold="SELECT DISTINCT m.name FROM module AS m JOIN function AS f ON f.module_id = m.id WHERE f.name = {a}",
        steps=(
            ("How many functions have that name?", "SELECT COUNT(*) FROM function WHERE name = {a}"),
            ("Where are they?", "SELECT module_id, class_id FROM function WHERE name = {a} LIMIT 20"),
        ),
        thought="I look up the names of these modules, each once.",
        answer="SELECT name FROM module WHERE id IN (SELECT module_id FROM function WHERE name = {a})",
        wrong="SELECT name FROM module WHERE id IN "
        "(SELECT module_id FROM function WHERE name = {a} ORDER BY id DESC LIMIT 1)",
    ),
)

SYSTEM = (
    Template(
        text="How many of the error numbers make Python raise {a} or an exception that descends from it?",
        hardness="extra",
        tables=("error_number", "exception"),
        pick="SELECT name FROM exception WHERE id IN (SELECT exception_id FROM error_number) OR id IN "
        "(SELECT parent_id FROM exception WHERE id IN (SELECT exception_id FROM error_number)) ORDER BY 1",
        gold="WITH RECURSIVE family(id) AS (SELECT id FROM exception WHERE name = {a} UNION SELECT e.id "
        "FROM exception AS e JOIN family AS f ON e.parent_id = f.id) "
        "SELECT COUNT(*) FROM error_number AS n JOIN family AS f ON n.exception_id = f.id",
        steps=(
            ("First the id of the exception.", "SELECT id FROM exception WHERE name = {a}"),
            ("Its direct children.", "SELECT id, name FROM exception WHERE parent_id = {s1}"),
        ),
        thought="I collect the whole family by following parent_id and count the error numbers that lead there.",
        answer="WITH RECURSIVE f(id) AS (SELECT {s1} UNION SELECT exception.id FROM exception JOIN f "
        "ON parent_id = f.id) SELECT COUNT(*) FROM error_number WHERE exception_id IN (SELECT id FROM f)",
        wrong="SELECT COUNT(*) FROM error_number",
    ),
    Template(
        text="Which exception is the parent of the one that Python raises for the error {a}, and what is the parent's "
        "summary?",
        hardness="hard",
        tables=("error_number", "exception"),
        pick="SELECT symbol FROM error_number ORDER BY 1",
        gold="SELECT p.name, p.summary FROM error_number AS n JOIN exception AS e ON n.exception_id = e.id "
        "JOIN exception AS p ON e.parent_id = p.id WHERE n.symbol = {a}",
        steps=(
            ("Which exception belongs to it?", "SELECT exception_id FROM error_number WHERE symbol = {a}"),
            ("And that one's parent?", "SELECT parent_id FROM exception WHERE id = {s1}"),
        ),
        thought="I read the parent's row.",
        answer="SELECT name, summary FROM exception WHERE id = {s2}",
        wrong="SELECT name, summary FROM exception WHERE id = {s1}",
    ),
    Template(
        text="Which signal has the same number as the error {a}, and which exception does Python raise for that "
        "error? Give the signal's name and description and the exception's name.",
        hardness="hard",
        tables=("error_number", "signal", "exception"),
        pick="SELECT e.symbol FROM error_number e JOIN signal s ON s.number = e.number ORDER BY 1",
        gold="SELECT s.name, s.description, x.name FROM error_number AS n JOIN signal AS s ON s.number = n.number "
        "JOIN exception AS x ON x.id = n.exception_id WHERE n.symbol = {a}",
        steps=(
            ("First the error's number.", "SELECT number FROM error_number WHERE symbol = {a}"),
            ("Which exception belongs to it?", "SELECT exception_id FROM error_number WHERE symbol = {a}"),
        ),
        thought="I put the signal of that number next to the exception of that id.",
        answer="SELECT signal.name, description, exception.name FROM signal, exception "
        "WHERE number = {s1} AND exception.id = {s2}",
        wrong="SELECT signal.name, description, exception.name FROM signal, exception "
        "WHERE number = {s1} + 1 AND exception.id = {s2}",
    ),
)

MARKUP = (
    Template(
        text="How many of the HTML names stand for a character of the general category '{a}'?",
        hardness="hard",
        tables=("entity", "character", "general_category"),
        pick="SELECT meaning FROM general_category WHERE code IN (SELECT category_code FROM character) ORDER BY 1",
        gold="SELECT COUNT(*) FROM entity AS e JOIN character AS c ON e.codepoint = c.codepoint "
        "JOIN general_category AS g ON c.category_code = g.code WHERE g.meaning = {a}",
        steps=(("First the code of the category.", "SELECT code FROM general_category WHERE meaning = {a}"),),
        thought="Several names can stand for one character, so I count names, not characters.",
        answer="SELECT COUNT(*) FROM entity WHERE codepoint IN "
        "(SELECT codepoint FROM character WHERE category_code = {s1})",
        wrong="SELECT COUNT(*) FROM character WHERE category_code = {s1}",
    ),
    Template(
        text="Which HTML names stand for the character {a}?",
        hardness="medium",
        tables=("entity", "character"),
        pick="SELECT c.name FROM character c JOIN entity e ON e.codepoint = c.codepoint GROUP BY 1 "
        "HAVING COUNT(*) >= 2 ORDER BY 1",
        gold="SELECT e.name FROM entity AS e JOIN character AS c ON e.codepoint = c.codepoint WHERE c.name = {a}",
        steps=(("First its code point.", "SELECT codepoint FROM character WHERE name = {a}"),),
        thought="Now the names of that code point.",
        answer="SELECT name FROM entity WHERE codepoint = {s1}",
        wrong="SELECT name FROM entity WHERE codepoint = {s1} LIMIT 1",
    ),
    Template(
        text="Which character of the general category '{a}' has the most HTML names? Give its name and the number of "
        "HTML names; of equals, the one with the smallest code point.",
        hardness="extra",
        tables=("entity", "character", "general_category"),
        pick="SELECT g.meaning FROM general_category g JOIN character c ON c.category_code = g.code GROUP BY 1 "
        "HAVING COUNT(*) >= 3 ORDER BY 1",
        gold="SELECT c.name, COUNT(*) AS n FROM entity AS e JOIN character AS c ON e.codepoint = c.codepoint "
        "JOIN general_category AS g ON c.category_code = g.code WHERE g.meaning = {a} GROUP BY c.codepoint "
        "ORDER BY n DESC, c.codepoint LIMIT 1",
        steps=(("First the code of the category.", "SELECT code FROM general_category WHERE meaning = {a}"),),
        thought="I count the names per character of that category.",
        answer="SELECT character.name, n FROM character JOIN (SELECT codepoint AS point, COUNT(*) AS n FROM entity "
        "GROUP BY codepoint) ON point = codepoint WHERE category_code = {s1} ORDER BY n DESC, codepoint LIMIT 1",
        wrong="SELECT character.name, COUNT(*) FROM character, entity WHERE entity.codepoint = character.codepoint "
        "AND category_code = {s1} GROUP BY character.codepoint ORDER BY character.codepoint DESC LIMIT 1",
    ),
)

WEB = (
    Template(
        text="How many HTTP statuses of the class '{a}' have a phrase of more than {b} characters?",
        hardness="medium",
        tables=("http_status", "status_class"),
        pick="SELECT c.meaning, LENGTH(s.phrase) FROM status_class c JOIN http_status s ON s.class_id = c.id "
        "GROUP BY 1, 2 ORDER BY 1, 2",
        gold="SELECT COUNT(*) FROM http_status AS s JOIN status_class AS c ON s.class_id = c.id "
        "WHERE c.meaning = {a} AND LENGTH(s.phrase) > {b}",
        steps=(("First the id of the class.", "SELECT id FROM status_class WHERE meaning = {a}"),),
        thought="Now I count its statuses by the length of their phrases.",
        answer="SELECT COUNT(*) FROM http_status WHERE class_id = {s1} AND LENGTH(phrase) > {b}",
        wrong="SELECT COUNT(*) FROM http_status WHERE class_id = {s1}",
    ),
    Template(
        text="Which file name suffixes belong to a media type of the main type {a} whose full name ends with '{b}'?",
        hardness="medium",
        tables=("media_type", "main_type"),
        pick="SELECT m.name, SUBSTR(t.name, -2) FROM main_type m JOIN media_type t ON t.main_type_id = m.id "
        "GROUP BY 1, 2 ORDER BY 1, 2",
        gold="SELECT t.suffix FROM media_type AS t JOIN main_type AS m ON t.main_type_id = m.id "
        "WHERE m.name = {a} AND SUBSTR(t.name, -2) = {b}",
        steps=(("First the id of the main type.", "SELECT id FROM main_type WHERE name = {a}"),),
        thought="Now its media types with that ending.",
        answer="SELECT suffix FROM media_type WHERE main_type_id = {s1} AND name LIKE '%' || {b}",
        wrong="SELECT suffix FROM media_type WHERE main_type_id <> {s1} AND name LIKE '%' || {b}",
    ),
    Template(
        text="How many media types of the table does each main type have whose suffix is longer than {a} characters, "
        "the dot included? Leave out main types without any.",
        hardness="hard",
        tables=("media_type", "main_type"),
        pick="SELECT DISTINCT LENGTH(suffix) - 1 FROM media_type ORDER BY 1",
        gold="SELECT m.name, COUNT(*) FROM media_type AS t JOIN main_type AS m ON t.main_type_id = m.id "
        "WHERE LENGTH(t.suffix) > {a} GROUP BY m.name",
        steps=(("How many are that long?", "SELECT COUNT(*) FROM media_type WHERE LENGTH(suffix) > {a}"),),
        thought="I group them by the name of the main type.",
        answer="SELECT main_type.name, COUNT(*) FROM main_type, media_type WHERE main_type_id = id "
        "AND LENGTH(suffix) > {a} GROUP BY main_type.name",
        wrong="SELECT main_type.name, COUNT(*) FROM main_type, media_type WHERE main_type_id = id "
        "GROUP BY main_type.name",
    ),
)

TEMPLATES = {
    "unicode": UNICODE,
    "time_zones": TIME_ZONES,
    "library": LIBRARY,
    "system": SYSTEM,
    "markup": MARKUP,
    "web": WEB,
}
