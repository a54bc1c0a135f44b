"""The wording that generate.py draws from: resources, intents, urgency cues, noise.

`(a|b)` picks one branch, `{r}` is the resource's alias. The last templates of an
intent (`HELD_OUT_TEMPLATES` of them, per language) never enter training: they
rearrange words that the other templates teach, so that the test set asks for
understanding and not for recall of whole sentences.
"""

# Wording reads best packed, so the formatter stays out of here.
# fmt: off

HELD_OUT_TEMPLATES = 2

# name: (English name in replies, Chinese name in replies, English aliases, Chinese aliases)
RESOURCES = {
    "vpn": ("VPN", "VPN", ["VPN", "remote access VPN", "VPN client"], ["VPN", "远程接入VPN", "VPN客户端"]),
    "email": ("email", "邮箱", ["email", "Outlook", "mailbox"], ["邮箱", "邮件系统", "Outlook"]),
    "erp": ("ERP", "ERP系统", ["ERP", "SAP", "ERP system"], ["ERP", "SAP", "ERP系统"]),
    "crm": ("CRM", "CRM系统", ["CRM", "Salesforce", "CRM tool"], ["CRM", "客户管理系统", "CRM系统"]),
    "payroll": ("payroll", "薪资系统", ["payroll portal", "payroll", "salary portal"], ["薪资系统", "工资系统"]),
    "wiki": ("wiki", "知识库", ["wiki", "Confluence", "team wiki"], ["知识库", "Confluence", "维基"]),
    "code_repo": ("code repository", "代码仓库",
                  ["GitLab", "code repository", "git server"], ["GitLab", "代码仓库", "git服务器"]),
    "database": ("database", "数据库",
                 ["database", "reporting database", "Postgres database"], ["数据库", "报表数据库"]),
    "shared_drive": ("shared drive", "共享盘",
                     ["shared drive", "network drive", "file share"], ["共享盘", "网络盘", "共享文件夹"]),
    "wifi": ("Wi-Fi", "无线网络", ["Wi-Fi", "wireless", "office wifi"], ["无线网络", "WiFi", "公司WiFi"]),
    "video_call": ("video conferencing", "视频会议",
                   ["Zoom", "Teams", "video conferencing"], ["视频会议", "Teams", "腾讯会议"]),
    "laptop": ("laptop", "笔记本电脑", ["laptop", "notebook", "ThinkPad"], ["笔记本", "笔记本电脑", "ThinkPad"]),
    "printer": ("printer", "打印机", ["printer", "office printer", "label printer"], ["打印机", "办公室打印机"]),
    "monitor": ("monitor", "显示器", ["monitor", "external screen", "display"], ["显示器", "外接屏幕"]),
    "dock": ("docking station", "扩展坞", ["docking station", "dock", "USB-C dock"], ["扩展坞", "拓展坞"]),
    "desk_phone": ("desk phone", "座机", ["desk phone", "IP phone", "landline"], ["座机", "办公电话"]),
    "headset": ("headset", "耳机", ["headset", "headphones"], ["耳机", "耳麦"]),
    "badge": ("badge", "门禁卡", ["badge", "access card", "door badge"], ["门禁卡", "工卡"]),
    "office_suite": ("office suite", "办公软件", ["Excel", "office suite", "Word"], ["Excel", "办公软件", "Word"]),
    "ide": ("IDE", "开发工具", ["PyCharm", "VS Code", "IDE"], ["PyCharm", "VS Code", "开发工具"]),
}

_ACCOUNTS = ["vpn", "email", "erp", "crm", "payroll", "wiki", "code_repo", "database"]
_SERVICES = [*_ACCOUNTS, "shared_drive", "wifi", "video_call"]
_DEVICES = ["laptop", "printer", "monitor", "dock", "desk_phone", "headset", "badge"]

# name: resources, reply in English, reply in Chinese, English templates, Chinese templates
INTENTS = {
    "password_reset": (
        _ACCOUNTS,
        "We are resetting your {R} password", "正在重置您的{R}密码",
        [
            "I (forgot|have forgotten|can't remember) my {r} password",
            "(please|could you|can you) reset my {r} password",
            "my password for {r} (has expired|is expired|no longer works)",
            "I need a new password for {r}",
            "the {r} password reset link (never arrived|does not work)",
            "{r} says my password is wrong, please reset it",
            "I have forgotten the password for {r} and need a reset",
            "for {r} I need my password reset",
        ],
        [
            "我(忘记|忘|记不得)了{r}的密码", "(请|麻烦|能否)帮我重置{r}密码", "我的{r}密码(已经过期|过期了|失效了)",
            "{r}需要一个新密码", "{r}的密码重置链接(没收到|打不开)", "{r}提示密码错误，请重置一下",
            "{r}的密码我忘记了，需要重置", "需要帮我重置一下{r}的密码",
        ],
    ),
    "account_unlock": (
        _ACCOUNTS,
        "We are unlocking your {R} account", "正在解锁您的{R}账号",
        [
            "my {r} account (is|has been|got) locked",
            "I (am|got) locked out of {r}",
            "(please|could you|can you) unlock my {r} account",
            "{r} says my account is locked after too many attempts",
            "too many wrong attempts and now {r} is locked for me",
            "account locked in {r}",
            "could you please unlock {r} for me, I got locked out",
            "after too many attempts my account for {r} got locked",
        ],
        [
            "我的{r}账号被锁(定|住)了", "{r}账号锁了，登不进去", "(请|麻烦|能否)帮我解锁{r}账号",
            "输错太多次，{r}账号被锁定", "{r}提示账号已锁定", "{r}账号需要解锁",
            "{r}的账号被锁了，请帮我解锁", "输错太多次，需要解锁{r}",
        ],
    ),
    "access_request": (
        [*_ACCOUNTS, "shared_drive"],
        "We are arranging your {R} access", "正在为您开通{R}权限",
        [
            "I need access to {r}",
            "(please|could you|can you) (grant|give) me access to {r}",
            "requesting (read|write|full) permission for {r}",
            "our new colleague needs access to {r}",
            "I (don't have|have no) permission to open {r}, please grant it",
            "how soon can I get access to {r}",
            "please grant our new colleague permission for {r}",
            "{r}: I need (read|write) access, please",
        ],
        [
            "我需要{r}的(访问权限|权限)", "(请|麻烦|能否)给我开通{r}权限", "申请{r}的(只读|读写|完整)权限",
            "新同事需要{r}的访问权限", "我没有权限打开{r}，请开通", "想申请访问{r}",
            "请给新同事开通{r}的权限", "申请开通{r}的访问权限",
        ],
    ),
    "access_revoke": (
        [*_ACCOUNTS, "shared_drive"],
        "We are removing the {R} access", "正在撤销{R}权限",
        [
            "please (remove|revoke) access to {r} for a colleague who left",
            "a contractor has left, (remove|revoke) their {r} access",
            "{r} access must be (removed|revoked) for a former employee",
            "disable the {r} account of someone who left the company",
            "a former employee still has access to {r}",
            "offboarding: (remove|revoke) {r} permission",
            "someone left the company, please revoke {r} access",
            "a contractor left and still has {r} access",
        ],
        [
            "请(撤销|收回|取消)离职同事的{r}权限", "外包人员已离场，(撤销|收回)其{r}权限", "离职员工的{r}账号需要停用",
            "有同事离职了，请停用{r}账号", "前员工还能访问{r}", "离职手续：(撤销|收回){r}权限",
            "有同事离职，{r}权限请收回", "前员工离职了还有{r}权限，请撤销",
        ],
    ),
    "outage": (
        [*_SERVICES],
        "We are looking into the {R} failure", "正在排查{R}故障",
        [
            "I (can't|cannot|am unable to) connect to {r}",
            "{r} (is down|is not working|stopped working)",
            "{r} keeps (disconnecting|dropping)",
            "{r} (fails|won't load) with an error",
            "getting an error (message|page) when I open {r}",
            "no connection to {r} since this morning",
            "{r} stopped working and I cannot connect",
            "since this morning {r} is down with an error",
        ],
        [
            "{r}连不上(了|)", "{r}(无法|不能)连接", "{r}(挂了|用不了|打不开)", "{r}老是(断线|掉线)",
            "打开{r}就报错", "从早上开始{r}就用不了",
            "从早上开始{r}一直报错，连不上", "{r}一直断线，无法连接",
        ],
    ),
    "slow": (
        [*_SERVICES, "laptop"],
        "We are checking why the {R} is slow", "正在检查{R}变慢的原因",
        [
            "{r} is (very|extremely|so) slow",
            "{r} has become really slow (lately|recently)",
            "it takes (minutes|forever) to load anything in {r}",
            "performance of {r} is (terrible|poor|bad)",
            "{r} lags (a lot|all the time)",
            "everything on {r} is slow today",
            "{r} has poor performance and lags",
            "recently {r} is extremely slow and takes forever to load",
        ],
        [
            "{r}(特别|非常|太)慢", "{r}最近(变得很慢|越来越慢)", "{r}加载要好几分钟", "{r}性能(很差|太差)",
            "{r}(经常|一直)卡顿", "今天{r}反应很慢",
            "最近{r}一直卡顿，非常慢", "{r}加载特别慢",
        ],
    ),
    "install": (
        ["vpn", "erp", "crm", "video_call", "office_suite", "ide", "email"],
        "We are installing the {R} software", "正在为您安装{R}",
        [
            "please install {r} on my computer",
            "I need {r} installed",
            "can I get {r} set up on my new machine",
            "{r} is missing on my computer, please install it",
            "(could you|can you) set up {r} for me",
            "installation of {r} needs admin rights",
            "could you install {r} on my new machine",
            "I need admin rights for the installation of {r}",
        ],
        [
            "请在我的电脑上安装{r}", "我需要安装{r}", "新电脑需要(装|安装){r}", "我的电脑没有{r}，请安装",
            "能否帮我装一下{r}", "安装{r}需要管理员权限",
            "麻烦在新电脑上安装{r}", "我需要管理员权限来安装{r}",
        ],
    ),
    "hardware_fault": (
        _DEVICES,
        "We will repair your {R}", "将为您维修{R}",
        [
            "my {r} is (broken|damaged)",
            "the {r} (doesn't turn on|won't turn on)",
            "my {r} (makes a strange noise|smells burnt)",
            "the {r} (fell down|was dropped) and is broken",
            "{r} (is dead|is defective), it needs a repair",
            "(please|can you) repair the {r}",
            "my {r} is defective and won't turn on",
            "repair needed: {r} is damaged",
        ],
        [
            "我的{r}坏了", "{r}(开不了机|没有反应)", "{r}有(异响|焦味)", "{r}摔(坏了|了一下)，需要维修",
            "{r}(损坏|故障)了，请维修", "(请|麻烦)维修一下{r}",
            "{r}坏了，没有反应，请维修", "需要维修，{r}损坏了",
        ],
    ),
    "equipment_request": (
        _DEVICES,
        "We are ordering your {R}", "正在为您申领{R}",
        [
            "I would like to order a new {r}",
            "(please|can you) order a {r} for me",
            "our new hire starts soon and needs a {r}",
            "I need a second {r} for the home office",
            "requesting a (spare|replacement) {r}",
            "could I (have|get) an additional {r}",
            "please order a spare {r} for our new hire",
            "for the home office I would like an additional {r}",
        ],
        [
            "我想申领一(个|台)新的{r}", "(请|麻烦)帮我采购一个{r}", "新员工入职需要配{r}", "居家办公需要再配一个{r}",
            "申请一个(备用|替换)的{r}", "能否多领一个{r}",
            "新员工入职，申领一个{r}", "居家办公想申领一个备用的{r}",
        ],
    ),
    "data_restore": (
        ["email", "shared_drive", "wiki", "database", "code_repo", "laptop", "crm"],
        "We are restoring your {R} data", "正在恢复您的{R}数据",
        [
            "I (accidentally|mistakenly) deleted (files|data) from {r}",
            "(please|can you) restore (yesterday's|last week's) data in {r}",
            "files in {r} have disappeared",
            "can you recover deleted items from {r}",
            "we need a backup of {r} restored",
            "data in {r} got overwritten, please restore it",
            "please recover files I accidentally deleted from {r}",
            "data disappeared from {r}, we need the backup restored",
        ],
        [
            "我(误删|不小心删除)了{r}里的文件", "(请|麻烦)恢复{r}(昨天|上周)的数据", "{r}里的文件不见了",
            "能否找回{r}里删除的内容", "需要从备份恢复{r}", "{r}的数据被覆盖了，请恢复",
            "{r}里误删的文件请帮忙恢复", "{r}的数据不见了，需要从备份恢复",
        ],
    ),
    "security_report": (
        ["email", "laptop", "vpn", "badge", "crm", "payroll", "wifi"],
        "Security is investigating your {R} report", "安全团队正在调查{R}事件",
        [
            "I received a (suspicious|phishing) message about {r}",
            "I think my {r} was (hacked|compromised)",
            "someone stole my {r}",
            "there is a suspicious login on {r}",
            "reporting (a possible|a) security incident with {r}",
            "possible malware on {r}",
            "I think there is a security incident, {r} was hacked",
            "suspicious phishing link for {r}, reporting it",
        ],
        [
            "收到关于{r}的(可疑|钓鱼)消息", "我怀疑{r}被(黑|入侵)了", "我的{r}被偷了", "{r}有可疑登录",
            "上报一起{r}安全事件", "{r}可能中了病毒",
            "怀疑{r}被入侵，上报安全事件", "收到可疑的{r}钓鱼链接，上报一下",
        ],
    ),
    "how_to": (
        ["vpn", "email", "printer", "video_call", "wiki", "erp", "desk_phone", "office_suite"],
        "We are sending you the {R} guide", "将向您发送{R}使用指南",
        [
            "how do I (use|configure) {r}",
            "is there a (guide|manual) for {r}",
            "where can I find instructions for {r}",
            "(can|could) someone (show|explain to) me how to use {r}",
            "I have a question about using {r}",
            "I don't know how to configure {r}",
            "where is the manual on how to use {r}",
            "question: are there instructions to configure {r}",
        ],
        [
            "请问{r}怎么(用|设置)", "有没有{r}的(使用说明|操作手册)", "哪里能找到{r}的使用说明", "能否教我怎么使用{r}",
            "想咨询一下{r}的使用方法", "我不知道怎么设置{r}",
            "请问哪里有{r}的操作手册", "想咨询{r}怎么设置",
        ],
    ),
}

# name: English cues, Chinese cues, English reply ending, Chinese reply ending
URGENCIES = {
    "low": (
        ["no rush", "not urgent", "whenever you have time", "this is low priority", "it can wait until next week"],
        ["不着急", "不急", "有空再处理就行", "优先级不高", "下周处理也可以"],
        "within five days", "五天内完成",
    ),
    "normal": (
        ["", "", "", "today or tomorrow is fine", "usual priority"],
        ["", "", "", "今明两天处理就好", "正常处理即可"],
        "by tomorrow", "明天前完成",
    ),
    "high": (
        ["this is urgent", "as soon as possible please", "I need this within the hour", "I am blocked until it is done",
         "a client is waiting for me"],
        ["很急", "请尽快处理", "一小时内要用", "我现在没法工作", "客户在等我"],
        "within two hours", "两小时内完成",
    ),
    "critical": (
        ["the whole office is affected", "nobody in the company can work", "production has stopped",
         "all our customers are affected", "this hits every team"],
        ["整个办公室都受影响", "全公司都没法工作", "生产已经停了", "所有客户都受影响", "每个团队都受影响"],
        "on-call is on it now", "值班人员立即处理",
    ),
}

GREETINGS = (
    ["hi", "hello", "hey team", "good morning", "dear helpdesk", "hi IT"],
    ["你好", "您好", "大家好", "早上好", "IT同事好", "在吗"],
)
CLOSINGS = (
    ["thanks", "thank you", "many thanks", "cheers", "best regards"],
    ["谢谢", "多谢", "辛苦了", "麻烦了", "感谢"],
)
# Numbers that are not ids, and small talk: what the model must leave out of `ids`.
DISTRACTORS = (
    ["I already restarted {n} times", "it started around {h}:{m}", "my desk is on floor {n}",
     "I asked a colleague first", "I work from home on Fridays", "we are a team of {n}"],
    ["我已经重启了{n}次", "大概{h}:{m}开始的", "我在{n}楼办公", "我先问过同事了", "我周五在家办公", "我们组有{n}个人"],
)

# kind: English clauses, Chinese clauses; `{id}` is written exactly as it must be copied.
ID_CLAUSES = {
    "ticket": (
        ["ticket {id}", "see {id}", "my earlier ticket is {id}", "reference {id}", "this follows up on {id}"],
        ["工单{id}", "见{id}", "之前的工单是{id}", "参考{id}", "工单号：{id}"],
    ),
    "asset": (
        ["asset tag {id}", "the asset is {id}", "asset {id}", "the sticker says {id}"],
        ["资产编号{id}", "资产号是{id}", "资产{id}", "标签上写着{id}"],
    ),
    "host": (
        ["host {id}", "hostname is {id}", "the machine is {id}", "on {id}"],
        ["主机{id}", "主机名是{id}", "机器是{id}", "机器名：{id}"],
    ),
    "user": (
        ["username {id}", "my login is {id}", "user {id}", "the account name is {id}"],
        ["用户名{id}", "我的登录名是{id}", "用户{id}", "账户名：{id}"],
    ),
    "extension": (
        ["call me at extension {id}", "ext. {id}", "my extension is {id}", "phone ext {id}"],
        ["分机{id}", "我的分机是{id}", "请拨分机{id}", "电话分机：{id}"],
    ),
}

TICKET_PREFIXES = ["INC", "REQ", "CHG", "PRB"]
ASSET_PREFIXES = ["AT", "HW", "PC"]
HOST_ROLES = ["lt", "ws", "srv", "prn"]
HOST_SITES = ["fin", "hr", "ops", "dev", "lab", "sales", "sh", "bj", "ber", "nyc"]
GIVEN_NAMES = ["anna", "ben", "carla", "david", "emma", "felix", "grace", "henry", "ivan", "julia", "kevin", "lena",
               "wei", "lei", "fang", "jun", "min", "tao", "yan", "hao"]
SURNAMES = ["miller", "smith", "jones", "brown", "garcia", "weber", "novak", "rossi", "kim", "singh", "lopez", "clark",
            "wang", "li", "zhang", "chen", "liu", "yang", "zhao", "wu"]

SYSTEM_PROMPTS = [
    "You are the IT helpdesk. Answer with a triage ticket as JSON.",
    "Triage the message and answer with a JSON ticket.",
    "你是IT服务台，请用JSON工单回答。",
]
