"""How texts say that something failed: regular expressions (RE2 and Python) of the soft-error rules.

Each is tight enough that headings, manuals, records and program text seldom match; the tests hold examples of both.
"""

from __future__ import annotations

from typing import Final

LEADING: Final = r"^[\s\"'`\[({<*#>-]*"

RATE_LIMIT: Final = (
    r"(?i:rate[ _-]?limit(?:ed\b|(?: was| has been| is)? (?:exceeded|reached|hit)\b|_(?:error|exceeded|reached))|"
    r"too many requests|quota (?:exceeded|exhausted|reached)|insufficient_quota|"
    r"exceeded (?:your|the) (?:current )?quota|overloaded_error|resource_?exhausted|"
    r"\b(?:api|engine|model|server|service|system)s?(?: is| are)?(?: currently| temporarily)? overloaded\b|"
    r"^\W*overloaded\W*$)"
)
TIMEOUT: Final = (
    r"(?i:\btimed[ _-]?out\b|\bdeadline exceeded\b|\btime limit (?:exceeded|reached)|"
    r"\btimeout (?:error|exceeded|expired|reached|after|while|waiting|of \d+ ?\w+ (?:exceeded|expired|reached)))|"
    r"(?m:^\W*(?:[\w.]+: )?[\w.]*Timeout(?:Error|Exception|Expired)\b)"
)
_REACHED: Final = r"\b(?:reached|exceeded|exhausted|hit)\b"
LIMIT: Final = (
    r"(?i:\bmax(?:imum)?[ _-]?(?:number of )?(?:turns?|steps?|iterations?|tool[ _]calls?|budget|retries|attempts)\b"
    rf"[^.;\n]{{0,40}}{_REACHED}|{_REACHED}[^.;\n]{{0,40}}\b(?:"
    r"max(?:imum)?[ _-]?(?:number of )?(?:turns?|steps?|iterations?)|"
    r"(?:turn|step|iteration|recursion|sample|message|token|cost|time)[ _-]?(?:limit|budget))|"
    r"\b(?:turn|step|iteration|recursion|sample|token|cost|budget)s?[ _-]?(?:limit|budget)?"
    r"(?: of \d+)?[ _](?:was |has been |is )?(?:exceeded|reached|exhausted)|"
    r"\bstopped (?:due to|because of|after)[^.;\n]{0,40}\b(?:limit|max|budget)|\bMaxTurnsExceeded|\bout of budget)"
)
_ABOUT_ARGUMENTS: Final = (
    LEADING + r"(?i:(?:error:? )?(?:(?:input )?validation (?:error\b|errors? (?:for|in|on|at)\b|errors?:|failed)|"
    r"\d+ validation errors?|"
    r"(?:invalid|unexpected|unrecognized|malformed)(?: \w+){0,2} "
    r"(?:argument|parameter|input|field|json|tool|function|schema|property|keyword|key|type|value)s?\b|"
    r"missing(?: \w+){0,2} (?:argument|parameter|input|field|property|key)s?\b|"
    r"unknown(?: \w+)? (?:argument|parameter|field|property|key)s?\b|"
    r"(?:no such|unknown) (?:tool|function)\b|tool \S+ (?:not found|does not exist)|"
    r"schema (?:mismatch|validation (?:error|failed))|failed to parse))",
    (
        r"(?i:missing \d+ required|got an unexpected keyword|is a required property|does not match (?:the )?schema|"
        r"\bis not of type\b)"
    ),
)
_MUST_BE: Final = (
    r"(?:must be|should be|expected) (?:<|>|=|at most|at least|one of|between|a |an |less|greater|positive|non-empty|"
    r"of type)"
)
WRONG_ARGUMENTS: Final = (
    *_ABOUT_ARGUMENTS,
    # A sentence starts with a capital, a parameter's name does not.
    rf"^\W*[a-z]\w*\W{{1,2}}(?i:{_MUST_BE})|(?i:\b{_MUST_BE}[^\n]*\b(?:got|received|instead|but (?:is|was))\b)",
    (
        r"(?i:required (?:argument|parameter|property|field)s?\b[^.\n]{0,60}\b(?:missing|absent|"
        r"not (?:given|provided))|"
        r"\bfield required[ :]*[\[(]|[\"']field required[\"']|\n[ \t]+field required)"
    ),
)
INVALID_ARGUMENTS: Final = (
    *_ABOUT_ARGUMENTS,
    rf"(?i:required (?:argument|parameter|property|field)|field required|\b{_MUST_BE})",
)
"""What tells, of a text that is known to be an error's, that it is about arguments."""
ACCESS_DENIED: Final = LEADING + (
    r"(?i:(?:permission|access) denied|not authori[sz]ed|authentication (?:failed|required)|operation not permitted|"
    r"(?:unauthori[sz]ed|forbidden|rejected|denied)(?:\W*$|\s*[:.!(—-]\s*[A-Za-z]|,| by )|"
    r"blocked by (?:\w+ ){0,2}(?:policy|policies|security|firewall|admin\w*|user|hooks?|sandbox|guardrails?|rules?|"
    r"permissions?|filters?|robots)\b)"
)
OS_ERROR: Final = (
    r"(?im:(?:^|[:\])] ?|\bopen )(?:no such file or directory|command not found|file not found|"
    r"connection (?:refused|reset)|could not resolve host|name or service not known|no space left on device)|"
    r"(?:no such file or directory|command not found|connection refused)\W*$|"
    r"is not recognized as an internal)|(?i:permission denied\W*$)"
)
ERROR_PREFIX: Final = LEADING + (
    r"(?:(?i:error|fatal|failed|failure|exception|panic)\s*[:>!]|(?i:failed to\b|"
    r"an? (?:\w+ )?error (?:has )?occurred|"
    r"(?:tool|execution|runtime|internal|server|api|unexpected|unknown) error(?:\W*$|\s*[:.!(\[—-]|"
    r" (?:in|from|while|calling|\d))|"
    r"error (?:\d|(?:running|executing|calling|invoking|while|in|from|during|code|processing|fetching|reading|"
    r"parsing)\b)|"
    r"(?:tool|execution|command|request|call|operation|build|query)(?: \w+)? failed(?:\W*$|\s*[:!.(]| with\b)|"
    r"npm (?:ERR!|error)|thread '[^'\n]*' (?:\(\d+\) )?panicked)|"
    r"(?:[A-Za-z_][\w.]*\.)?[A-Z]\w*(?:Error|Exception|Failure|Timeout|Interrupt|Exceeded)\s*[:(]|"
    r"\[?Errno -?\d+\]|❌|tool_(?:use_)?error)"
)
SAYS_NOTHING: Final = (
    r"(?i)\W*(?:(?:unknown|unexpected|internal|tool|function|runtime) )?(?:error|failed|failure|exception)"
    r"(?: (?:occurred|raised|(?:running|executing|calling|invoking|in) (?:the )?tool))?(?: \([\w -]+\))?\W*"
)
"""A status message that is the same whatever went wrong."""
LOGGED_ERROR: Final = r"(?i)^\W*\[\s*(?:error|fatal|failed|failure|exception|panic)\s*\]"
NO_ERROR: Final = (
    r"(?i)^\W*[\w ]{0,30}[:=]\s*(?:\W*$|(?:0|no|none|null|nil|false|n/a|no errors?)\s*(?:[,;.\n]|$)|"
    r"raised (?:when|if|by)\b)"
)
"""A heading, or a count or value that says that there is no error; or a manual's entry."""
REFUSAL: Final = (
    r"(?i)^\W*(?:as an ai[^,.\n]*, )?(?:(?:i['’]?m|i am) (?:very |so |really |truly )?sorry|sorry|i apologi[sz]e|"
    r"unfortunately)?[,.!:;\s—–-]*(?:but )?(?:i|we)(?: am| are|['’]m|['’]re)? (?:"
    r"(?:must|have to|need to) (?:\w+ )?decline|"
    r"(?:cannot|can['’]t|can not|not able to|unable to|won['’]t(?: be able to)?|will not(?: be able to)?) "
    r"(?:\w+ ){0,2}(?:help|assist|comply|fulfil+|do that|engage|continue with|"
    r"(?:process|complete|handle|answer) (?:this|that|your|the) request|"
    r"(?:provide|share|support|discuss|create|generate|write|answer)\b[^,;.!?\n]*(?:[.!]|$)))"
)
CUT: Final = (
    r"(?i)(?:(?:^|[\s.…])[\[(<][^\n\])>\"']*|(?:\.\.\.|…)[^\n\])>]{0,40})\b(?:truncated|omitted|cut off)\b[^\n]*\s*$"
)
