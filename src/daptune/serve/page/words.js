// What the page says, and that of `daptune export --to web`, by the browser's language: English, as it stands in index.html and in calls of t(), or Chinese.
// {name} stands for a value. The second part has what the server says, as it stands in the server's code.

export const zh = {
  "Skip to content": "跳到主要内容",
  "Mode": "模式",
  "Try": "试用",
  "Teach": "自己训练",
  "What is in the picture?": "图片里是什么？",
  "Pictures are classified on this machine and not stored.": "图片只在本机分类，不会保存。",
  "Adapter": "适配器",
  "Compare with zero-shot CLIP": "与零样本 CLIP 对比",
  "Results": "结果",
  "Teach it your own classes": "训练你自己的类别",
  "A few pictures per class are enough. Everything stays in a folder on this machine.": "每个类别只需几张图片。所有内容都保存在本机的文件夹里。",
  "This server has no folder to store lessons in. Start it with one:": "这个服务器没有可保存项目的文件夹。请这样启动：",
  "Lesson": "项目",
  "Delete this lesson": "删除此项目",
  "Name": "名称",
  "my-things": "例如 my-things",
  "Classes": "类别",
  "Add a class": "添加类别",
  "Create": "创建",
  "Steps": "步骤",
  "Add pictures": "添加图片",
  "Another class": "新类别",
  "Add": "添加",
  "Train": "训练",
  "Stop": "停止",
  "Training": "训练进度",
  "Pictures to check": "需要检查的图片",
  "Try and correct": "试用并纠正",
  "Wrong? Drag the picture onto its class above, or choose the class: the adapter is trained again with it.": "结果不对？把图片拖到上方正确的类别，或在下拉框中选择类别：适配器会加上这张图片重新训练。",
  "Download": "下载",
  "The adapter works on any machine with daptune:": "适配器可在任何装有 daptune 的机器上使用：",
  "Download the adapter": "下载适配器",
  "Camera": "摄像头",
  "Take a picture": "拍照",
  "Done": "完成",
  "Picture": "图片",
  "Class": "类别",
  "Move": "移动",
  "Remove": "移除",
  "Close": "关闭",
  "This server requires a token": "此服务器需要令牌",
  "Token": "令牌",
  "Continue": "继续",

  "The server does not answer. Is it still running?": "服务器没有响应。它还在运行吗？",
  "The server answered {status}.": "服务器返回了状态码 {status}。",
  "on {backbone}": "骨干网络：{backbone}",
  "exported model": "导出的模型",
  "The camera cannot be used: {why}": "无法使用摄像头：{why}",
  "Pictures of {label}": "“{label}”的图片",
  "{count} taken": "已拍 {count} 张",
  "Choose": "选择图片",
  "Choose pictures": "选择图片",
  "Drop pictures here": "把图片拖到这里",
  "or paste them with Ctrl+V": "或按 Ctrl+V 粘贴",
  "That is not a picture.": "这不是图片。",
  "zero-shot": "零样本",
  "adapter": "适配器",
  "zero-shot CLIP": "零样本 CLIP",

  "{name} (broken)": "{name}（已损坏）",
  "This adapter is broken: {why}": "此适配器已损坏：{why}",
  "{method}, {count} classes: {names}": "{method}，{count} 个类别：{names}",
  "No adapter yet. Train one in the tab Teach, or with daptune fit.": "还没有适配器。请在“自己训练”中训练一个，或使用 daptune fit。",
  "There is no adapter yet: train one first.": "还没有适配器：请先训练一个。",
  "not read": "未读取",
  "no preview": "无法预览",
  "Not sure": "不确定",
  "None of the classes": "不属于任何类别",
  "Unlike the training pictures. Likeliest: {first}": "与训练图片不相似。最可能：{first}",
  "Likeliest: {first}; then {second}. More pictures of each class help.": "最可能：{first}；其次：{second}。每个类别多加几张图片会有帮助。",
  "{read} of {count} pictures classified with {name}": "已用 {name} 分类 {count} 张图片中的 {read} 张",

  "Pictures are classified in this browser and sent nowhere.": "图片只在这个浏览器里分类，不会发送到任何地方。",
  "This browser has no WebAssembly, so it cannot run the model. Allow it in the browser's settings, or take another browser.": "此浏览器不支持 WebAssembly，无法运行模型。请在浏览器设置中允许，或换一个浏览器。",
  "The model cannot be run: {why}": "无法运行模型：{why}",
  "The model cannot be loaded: is the folder complete?": "无法加载模型：文件夹是否完整？",

  "Loss": "损失",
  "Accuracy on training pictures": "训练图片上的准确率",
  "New lesson …": "新建项目 …",
  "Class {number}": "类别 {number}",
  "cup": "cup（建议用英文名称）",
  "bottle": "bottle（建议用英文名称）",
  "another": "再加一个",
  "Lesson {name} with {count} classes": "项目 {name}，{count} 个类别",
  "Delete the lesson {name} with all its pictures? Its adapter is kept.": "删除项目 {name} 及其全部图片？它的适配器会保留。",
  "Train again": "重新训练",
  "{label} has no picture yet.": "“{label}”还没有图片。",
  "At least two classes are needed.": "至少需要两个类别。",
  "1 picture of {label} looks like {like}.": "“{label}”中有 1 张图片看起来像“{like}”。",
  "{count} pictures of {label} look like {like}.": "“{label}”中有 {count} 张图片看起来像“{like}”。",
  "Move to {label}": "移到“{label}”",
  "Move to {label} ({count})": "移到“{label}”（{count} 张）",
  "{count} moved to {label}": "已把 {count} 张移到“{label}”",
  "Choose pictures of {label}": "为“{label}”选择图片",
  "Camera for {label}": "用摄像头为“{label}”拍照",
  "Remove the class {label}": "移除类别“{label}”",
  "Remove {label} and its 1 picture?": "移除“{label}”及其 1 张图片？",
  "Remove {label} and its {count} pictures?": "移除“{label}”及其 {count} 张图片？",
  "1 picture": "1 张图片",
  "{count} pictures": "{count} 张图片",
  "Class {label}": "类别“{label}”",
  "Picture of {label}": "“{label}”的图片",
  "Picture of {label}: move or remove": "“{label}”的图片：移动或移除",
  "Moved to {label}": "已移到“{label}”",
  "1 picture for {label}": "“{label}”增加了 1 张图片",
  "{count} pictures for {label}": "“{label}”增加了 {count} 张图片",
  "Preparing …": "准备中 …",
  "About {seconds} s left": "约剩 {seconds} 秒",
  "Almost done": "即将完成",
  "Done. Try it below.": "训练完成，可在下方试用。",
  "Stopped.": "已停止。",
  "The server stopped; train again when it is back.": "服务器已停止；恢复后请重新训练。",
  "1 picture tried": "已试用 1 张图片",
  "{count} pictures tried": "已试用 {count} 张图片",
  "Correct class": "正确的类别",
  "Add and train": "加入并训练",
  "Training is running; correct the picture when it is done.": "正在训练，完成后再纠正这张图片。",
  "Training with the picture as {label} …": "正在把这张图片作为“{label}”训练 …"
};

export const told = {
  "This browser cannot read the picture.": "此浏览器无法读取这张图片。",
  "not an image; expected {formats}.": "不是图片；支持的格式：{formats}。",
  "damaged ({why}).": "文件已损坏（{why}）。",
  "{width} x {height} pixels are over the limit of {most} million; shrink it.": "{width} x {height} 像素超过了 {most} 百万像素的上限；请先缩小。",
  "the name {name} is already taken; choose another name.": "名称 {name} 已被占用；请换一个名称。",
  "there is already an adapter named {name}; choose another name.": "已有名为 {name} 的适配器；请换一个名称。",
  "this name was taken by another request; choose another name.": "该名称刚被另一个请求占用；请换一个名称。",
  "expected different class names, found one twice.": "类别名不能重复。",
  "expected a name, not a path, of 1 to 64 letters, digits, spaces and . + - _ and at most {bytes} bytes, found {name}.": "名称不能是路径，只能由 1 到 64 个字母、数字、空格和 . + - _ 组成，且不超过 {bytes} 字节；当前为 {name}。",
  "expected a class name of 1 to 64 characters and at most {bytes} bytes without / \\ : * ? < > | and quotes, found {name}.": "类别名须为 1 到 64 个字符，不超过 {bytes} 字节，且不含 / \\ : * ? < > | 和引号；当前为 {name}。",
  "more than {most} classes; use `daptune fit` for more.": "类别超过 {most} 个；更多类别请使用 `daptune fit`。",
  "a lesson holds at most {most} images; use `daptune fit` for more.": "一个项目最多 {most} 张图片；更多图片请使用 `daptune fit`。",
  "there is no lesson named {name}.": "没有名为 {name} 的项目。",
  "{name} has no class {label}.": "{name} 中没有类别 {label}。",
  "there is no image {image} of {label}.": "{label} 中没有图片 {image}。",
  "{name} was not trained yet.": "{name} 还没有训练过。",
  "{name} is being trained; wait for it, or stop it.": "{name} 正在训练；请等待完成，或先停止训练。",
  "expected two or more classes, found {count}; add a class.": "至少需要两个类别，现有 {count} 个；请添加类别。",
  "the class {label} has no image; add a few, or remove the class.": "类别 {label} 没有图片；请添加几张，或移除该类别。",
  "there is no adapter named {name}; GET /v1/adapters lists them.": "没有名为 {name} 的适配器；GET /v1/adapters 会列出全部适配器。",
  "this was removed meanwhile.": "它已被移除。",
  "the server accepts at most {most} images; send fewer at a time.": "服务器一次最多接受 {most} 张图片；请减少每次的数量。",
  "{count} images are already waiting; try again later.": "已有 {count} 张图片在排队；请稍后再试。",
  "{count} requests are already running; try again later.": "已有 {count} 个请求在处理；请稍后再试。",
  "the body has more than {most} bytes; send fewer or smaller files.": "请求超过 {most} 字节；请减少文件数量或缩小文件。",
  "other requests have filled the room for uploads; try again later.": "上传空间已被其他请求占满；请稍后再试。",
  "the body did not arrive within {seconds} seconds.": "请求没有在 {seconds} 秒内传完。",
  "no answer within {seconds} seconds; send fewer images, or try again.": "{seconds} 秒内没有结果；请减少图片数量，或再试一次。",
  "the server is stopping.": "服务器正在停止。",
  "the server's disk is full; make room there, then try again.": "服务器的磁盘已满；请清理空间后再试。",
  "the server has too many open files; try again later.": "服务器打开的文件过多；请稍后再试。",
  "another request or program is writing this; try again later.": "另一个请求或程序正在写入；请稍后再试。"
};

const chinese = navigator.languages.map((each) => each.toLowerCase().split("-")[0]).find((each) => each === "en" || each === "zh") === "zh";

const filled = (text, values) => text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);

// A text of the page in the reader's language.
export const t = (text, values = {}) => filled((chinese && zh[text]) || text, values);

// What the server says, in the reader's language if it is known: a reason, perhaps after the name of a file.
export function said(text) {
  if (!chinese) return text;
  for (const [english, translated] of patterns) {
    const { groups } = english.exec(text) ?? {};
    if (groups) return (groups.before ? `${groups.before}：` : "") + filled(translated, groups);
  }
  return zh[text] ?? text;
}

const literal = (text) => text.replace(/[.*+?^$()[\]\\|]/g, "\\$&");
const patterns = Object.entries(told).map(([english, translated]) => {
  const parts = english.split(/\{(\w+)\}/);
  const source = parts.map((part, place) => (place % 2 ? `(?<${part}>.+?)` : literal(part))).join("");
  return [new RegExp(`^(?:(?<before>.+?): )?${source}$`, "s"), translated];
});

// Puts the texts and attributes of index.html into the reader's language.
export function translate() {
  document.documentElement.lang = chinese ? "zh-Hans" : "en";
  if (!chinese) return;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const words = walker.currentNode.data.trim().replace(/\s+/g, " ");
    if (zh[words]) walker.currentNode.data = zh[words];
  }
  for (const name of ["aria-label", "placeholder"])
    for (const element of document.querySelectorAll(`[${name}]`)) element.setAttribute(name, t(element.getAttribute(name)));
}
